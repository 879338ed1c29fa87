#!/usr/bin/env python3
"""Quantizes a model with several settings, measures each result from its file, writes a table.

    tools/measure.py --binary build/release/billm --model DIR --calib FILE --ppl FILE \
        --work DIR --out docs/measurements/NAME ROW [ROW ...]

A ROW is "label: flags of billm quantize". Writes NAME.json (everything) and NAME.md (the table with
the commands). A row that stands in NAME.json already, made by the same binary, is not run again.
"""
import argparse
import hashlib
import json
import pathlib
import platform
import shlex
import subprocess
import sys


def run(command):
    print("+", shlex.join(command), flush=True)
    subprocess.run(command, check=True)


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def measure(args, label, flags):
    work = pathlib.Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    out, quantized, evaluated = work / "result", work / "quantize.json", work / "eval.json"
    quantize = [args.binary, "quantize", "--model", args.model, *shlex.split(flags),
                "--calib", args.calib, "--out", str(out), "--overwrite",
                "--json", str(quantized), "--quiet"]
    evaluate = [args.binary, "eval", "--model", str(out), "--ppl", args.ppl,
                "--json", str(evaluated), "--quiet"]
    if args.kl:
        evaluate += ["--kl", args.model]
    run(quantize)
    run(evaluate)
    q, e = json.loads(quantized.read_text()), json.loads(evaluated.read_text())
    weights = sum(l["shape"][0] * l["shape"][1] for l in q["layers"])
    return {
        "label": label, "flags": flags, "nominal_bits": q["nominal_bits"],
        "stored_bits": q["stored_bits"], "ppl": e["ppl"], "kl": e.get("kl_mean"),
        "mean_error": sum(l["error"] * l["shape"][0] * l["shape"][1] for l in q["layers"]) / weights,
        "windows": e["windows"], "seqlen": e["seqlen"], "seconds": q["seconds"],
        "peak_rss_bytes": q["peak_rss_bytes"],
    }


def table(args, record):
    lines = [f"# {pathlib.Path(args.out).name}", "",
             f"Made by `tools/measure.py` with `--calib {pathlib.Path(args.calib).name}` and "
             f"`--ppl {pathlib.Path(args.ppl).name}`, model `{pathlib.Path(args.model).name}`, on "
             f"{record['processor']}. Perplexities are exact; seconds are of one run beside other "
             "work. `error` is the mean over the weights of tr(D H D') / tr(W H W').", "",
             "| setting | flags of `billm quantize` | nominal bits | stored bits | perplexity | KL | "
             "error | seconds: forward, hessian, quantize, pack |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in record["rows"]:
        s = row["seconds"]
        kl = "" if row["kl"] is None else f"{row['kl']:.3f}"
        lines.append(
            f"| {row['label']} | `{row['flags']}` | {row['nominal_bits']:.3f} | "
            f"{row['stored_bits']:.3f} | {row['ppl']:.2f} | {kl} | {row['mean_error']:.4f} | "
            f"{s['forward']:.0f}, {s['hessian']:.0f}, {s['quantize']:.0f}, {s['pack']:.0f} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("binary", "model", "calib", "ppl", "work", "out"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--kl", action="store_true", help="also the KL to the original")
    parser.add_argument("rows", nargs="+", metavar="ROW")
    args = parser.parse_args()
    binary = hashlib.sha256(pathlib.Path(args.binary).read_bytes()).hexdigest()
    path = pathlib.Path(args.out + ".json")
    record = {"binary_sha256": binary, "processor": processor(), "rows": []}
    if path.exists():
        old = json.loads(path.read_text())
        if old["binary_sha256"] == binary:
            record = old
    for row in args.rows:
        label, _, flags = row.partition(": ")
        if any(done["flags"] == flags.strip() for done in record["rows"]):
            continue
        try:
            record["rows"].append(measure(args, label.strip(), flags.strip()))
        except subprocess.CalledProcessError as error:
            sys.exit(f"measure.py: '{label.strip()}' failed: {error}")
        path.write_text(json.dumps(record, indent=1) + "\n")
        pathlib.Path(args.out + ".md").write_text(table(args, record))


if __name__ == "__main__":
    main()
