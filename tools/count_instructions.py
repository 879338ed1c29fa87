#!/usr/bin/env python3
"""Counts the instructions of two builds of billm by callgrind on a tiny model, and prints a table.

    tools/make_synthetic_model.py DIR --tokenizer tokenizer.model --hidden 128 --intermediate 320 \
        --blocks 1 --heads 4 --kv-heads 2
    tools/count_instructions.py --baseline OLD/billm --binary NEW/billm --model DIR --text FILE.txt

Each command runs on one thread, since counts of several differ from run to run, with the same text.
The start of the program, counted by --version, is taken off. valgrind knows no AVX-512, so what is
counted are the AVX2 kernels. Minutes for each command.
"""
import argparse
import pathlib
import re
import subprocess
import tempfile

QUANTIZE = {"billm": "--method billm", "stbllm 4:8": "--method stbllm --nm 4:8",
            "arb": "--method arb", "pbllm": "--method pbllm --salient 0.1",
            "gptq 2": "--method gptq --bits 2", "rtn 2": "--method rtn --bits 2"}


def count(work, binary, *words):
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={work}/callgrind.out",
               binary, *words]
    result = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode != 0 or not found:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr[-2000:]}")
    return int(found.group(1))


def commands(args, work, binary):
    """(label, words) of every command that is counted."""
    tokens = ["--nsamples", "2", "--seqlen", "128", "--calib", args.text]
    common = ["--threads", "1", "--quiet"]
    for label, flags in QUANTIZE.items():
        yield f"quantize {label}", ["quantize", "--model", args.model, *flags.split(), *tokens,
                                    "--out", f"{work}/{binary}-{label}", "--overwrite", *common]
    result = f"{work}/{binary}-billm"
    yield "eval", ["eval", "--model", result, "--ppl", args.text, "--windows", "2", "--seqlen",
                   "128", *common]
    # A window at once; a binary of before 2026-12 calls that plain --run-packed.
    yield "eval --run-packed", ["eval", "--model", result, "--run-packed=prefill", "--ppl",
                                args.text, "--windows", "1", "--seqlen", "128", *common]
    yield "generate -n 16", ["generate", "--model", result, "--prompt", "The quick brown fox",
                             "-n", "16", "--greedy", "--ignore-eos", *common]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--baseline", required=True, help="the older billm")
    parser.add_argument("--binary", required=True, help="the newer billm")
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    args = parser.parse_args()
    binaries = {"baseline": args.baseline, "now": args.binary}
    counts = {name: {} for name in binaries}
    with tempfile.TemporaryDirectory() as work:
        for name, path in binaries.items():
            start = count(work, path, "--version")
            for label, words in commands(args, pathlib.Path(work), name):
                counts[name][label] = count(work, path, *words) - start
    print("| command | baseline, 10^6 | now, 10^6 | now / baseline |\n| --- | --- | --- | --- |")
    for label, before in counts["baseline"].items():
        after = counts["now"][label]
        print(f"| `{label}` | {before / 1e6:,.0f} | {after / 1e6:,.0f} | {after / before:.3f} |")


if __name__ == "__main__":
    main()
