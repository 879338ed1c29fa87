#!/usr/bin/env python3
"""Quantizes a model with several settings, evaluates each result from its file, writes a table.

    tools/measure.py --binary build/release/billm --model demo --calib calib_tokens.npy \
        --ppl wiki=peer_eval_tokens.npy --ppl c4=c4:8 --kl --work DIR \
        --out docs/measurements/NAME ROW [ROW ...]

A ROW is "label: flags of billm quantize [=> flags of billm distill]". With "=>" the quantized
model is distilled, and the distilled one is evaluated. The flags of a row may hold --calib,
--nsamples and --seqlen of their own; distillation learns from the text that the row was calibrated
with, unless its own flags name another.

Writes NAME.json (everything; also read by tools/plot_frontier.py) and NAME.md (the table), anew
after every row. A row whose flags stand in NAME.json is not run again; if another binary made it,
it is kept with that binary's checksum, or with --again replaced. Directories are left out of what
is written, so texts are told apart by their file names.
"""
import argparse
import hashlib
import json
import math
import pathlib
import platform
import re
import shlex
import subprocess
import sys

CALIBRATION = ("calib", "nsamples", "seqlen", "seed")
ORIGINAL = {"label": "original", "flags": None, "distill_flags": None}


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def without_directories(text):
    return re.sub(r"[^\s='\"]*/(?=[^\s/'\"])", "", text)


def parse_row(text):
    label, colon, flags = text.partition(": ")
    flags, arrow, distill = flags.partition("=>")
    if not colon or not label.strip():
        raise argparse.ArgumentTypeError(f"'{text}': expected 'label: flags [=> flags]'")
    return {"label": label.strip(), "flags": flags.strip(),
            "distill_flags": distill.strip() if arrow else None}


def parse_text(text):
    name, equals, source = text.partition("=")
    if not name or not equals or not source:
        raise argparse.ArgumentTypeError(f"'{text}': expected NAME=TEXT[:WINDOWS]")
    head, colon, windows = source.rpartition(":")
    if colon and windows.isdigit():
        return {"name": name, "source": head, "windows": int(windows)}
    return {"name": name, "source": source, "windows": None}


def with_defaults(flags, defaults):
    """`flags` and those of `defaults` {name: value or None} that they do not set."""
    words = shlex.split(flags)
    given = {word.split("=")[0] for word in words}
    for name, value in defaults.items():
        if value is not None and f"--{name}" not in given:
            words += [f"--{name}", str(value)]
    return words


def values_of(words, names):
    """{name: value or None} of the options `--name value` and `--name=value` in `words`."""
    values = dict.fromkeys(names)
    for word, following in zip(words, [*words[1:], None]):
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in names:
            values[name] = value if equals else following
    return values


def run(args, *words):
    """The report of `billm WORDS`."""
    report = pathlib.Path(args.work) / "report.json"
    data_dir = ["--data-dir", args.data_dir] if args.data_dir else []
    command = [args.binary, *words, *data_dir, "--quiet", "--json", str(report)]
    print("+", shlex.join(command), flush=True)
    subprocess.run(command, check=True)
    return json.loads(report.read_text())


def evaluate(args, model):
    """{name of the text: figures}."""
    figures = {}
    for text in args.ppl:
        words = ["eval", "--model", model, "--ppl", text["source"]]
        if text["windows"]:
            words += ["--windows", str(text["windows"])]
        if args.kl and not figures and model != args.model:
            words += ["--kl", args.model]
        report = run(args, *words)
        nll = report["window_nll"]
        figures[text["name"]] = {
            "ppl": report["ppl"],
            "ppl_first2": None if len(nll) < 2 else
                          math.exp(sum(nll[:2]) / (2 * (report["seqlen"] - 1))),
            "windows": report["windows"], "seqlen": report["seqlen"],
            "kl": report.get("kl_mean"), "seconds": report["seconds"],
        }
    return figures


def mean_error(layers):
    if any(layer["error"] is None for layer in layers):
        return None
    sizes = [math.prod(layer["shape"]) for layer in layers]
    return sum(layer["error"] * n for layer, n in zip(layers, sizes)) / sum(sizes)


def measure_quantized(args, row):
    work = pathlib.Path(args.work)
    words = with_defaults(row["flags"], {name: getattr(args, name) for name in CALIBRATION})
    model = str(work / "quantized")
    quantized = run(args, "quantize", "--model", args.model, *words, "--out", model, "--overwrite")
    distilled = None
    if row["distill_flags"] is not None:
        same = with_defaults(row["distill_flags"], values_of(words, CALIBRATION))
        source, model = model, str(work / "distilled")
        distilled = run(args, "distill", "--model", source, "--original", args.model, *same,
                        "--out", model, "--overwrite")
    result = distilled or quantized
    return {
        "method": quantized["method"], "nominal_bits": result["nominal_bits"],
        "stored_bits": result["stored_bits"],
        "mean_error": None if distilled else mean_error(quantized["layers"]),
        "tuned": bool(quantized.get("tune")), "texts": evaluate(args, model),
        "seconds": quantized["seconds"],
        "distill_seconds": distilled["distill"]["seconds"] if distilled else None,
        "peak_rss_bytes": max(r["peak_rss_bytes"] for r in (quantized, distilled) if r),
    }


def measure_original(args):
    return {"method": "original", "nominal_bits": 16, "stored_bits": 16, "mean_error": None,
            "tuned": False, "texts": evaluate(args, args.model), "seconds": None,
            "distill_seconds": None, "peak_rss_bytes": None}


def key(row):
    """What makes two rows the same."""
    return {name: row[name] and without_directories(row[name])
            for name in ("flags", "distill_flags")}


def number(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def table(name, record):
    settings = record["settings"]
    texts, model = settings["texts"], settings["model"]
    calibration = " ".join(f"--{n} {settings[n]}" for n in CALIBRATION if settings[n] is not None)
    evals = [f"billm eval --model RESULT --ppl {t['source']}"
             + (f" --windows {t['windows']}" if t["windows"] else "")
             + (f" --kl {model}" if settings["kl"] and t is texts[0] else "") for t in texts]
    lines = [f"# {name}", "",
             f"Made by `tools/measure.py` on {record['processor']}. Perplexities are exact for "
             "this kind of processor; seconds are of one run beside other work. A row's flags take "
             "the place of `FLAGS`, and those after `=>` that of `MORE` (rows without `=>` are not "
             f"distilled). What `FLAGS` names of `{calibration}` it replaces in both commands, "
             "`MORE` in its own. `binary` is the start of its SHA-256.", "",
             f"    billm quantize --model {model} FLAGS {calibration}",
             f"    billm distill --model RESULT --original {model} MORE {calibration}",
             *(f"    {command}" for command in evals), ""]
    first = texts[0]["name"]
    heads = ["setting", "flags", "nominal bits", "stored bits", *(t["name"] for t in texts),
             f"{first}, first 2 windows", "KL", "s quantize", "s distill", "MB", "binary"]
    lines += ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for row in record["rows"]:
        flags = " => ".join(f for f in (row["flags"], row["distill_flags"]) if f is not None)
        figures = row["texts"]
        seconds, memory = row["seconds"], row["peak_rss_bytes"]
        cells = [row["label"], f"`{flags}`" if flags else "", f"{row['nominal_bits']:.3f}",
                 f"{row['stored_bits']:.3f}",
                 *(f"{figures[t['name']]['ppl']:.2f}" for t in texts),
                 number(figures[first]["ppl_first2"], 2), number(figures[first]["kl"], 3),
                 number(seconds and seconds["total"], 0), number(row["distill_seconds"], 0),
                 number(memory and memory / 1e6, 0), row["binary_sha256"][:8]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("binary", "model", "work", "out"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--calib", required=True, metavar="TEXT", help="as billm quantize takes it")
    parser.add_argument("--nsamples", type=int, metavar="N", help="default of all rows")
    parser.add_argument("--seqlen", type=int, metavar="L", help="default of all rows")
    parser.add_argument("--seed", type=int, metavar="S", help="default of all rows")
    parser.add_argument("--ppl", required=True, action="append", type=parse_text,
                        metavar="NAME=TEXT[:WINDOWS]", help="as billm eval takes it; repeatable")
    parser.add_argument("--data-dir", metavar="DIR", help="given to every command")
    parser.add_argument("--kl", action="store_true",
                        help="also the KL to the original on the first text")
    parser.add_argument("--original-row", action="store_true", help="also measure the original")
    parser.add_argument("--again", action="store_true",
                        help="replace those of the rows that another binary made")
    parser.add_argument("rows", nargs="*", type=parse_row, metavar="ROW")
    args = parser.parse_args()
    if len({text["name"] for text in args.ppl}) < len(args.ppl):
        parser.error("--ppl: every text needs a name of its own")
    return args


def main():
    args = parse_arguments()
    pathlib.Path(args.work).mkdir(parents=True, exist_ok=True)
    binary = hashlib.sha256(pathlib.Path(args.binary).read_bytes()).hexdigest()
    settings = {"model": pathlib.Path(args.model).name, "kl": args.kl,
                **{name: getattr(args, name) for name in CALIBRATION},
                "texts": [{**t, "source": pathlib.Path(t["source"]).name} for t in args.ppl]}
    settings["calib"] = pathlib.Path(args.calib).name
    path = pathlib.Path(args.out + ".json")
    record = {"settings": settings, "processor": processor(), "rows": []}
    if path.exists():
        record = json.loads(path.read_text())
        for name in ("settings", "processor"):
            now = settings if name == "settings" else processor()
            if record.get(name) != now:
                sys.exit(f"measure.py: {path}: {name}: expected {json.dumps(now)}, got "
                         f"{json.dumps(record.get(name))}\n   choose another --out")
    for row in ([ORIGINAL] if args.original_row else []) + args.rows:
        index = next((i for i, done in enumerate(record["rows"]) if key(done) == key(row)), None)
        if index is not None:
            theirs = record["rows"][index]["binary_sha256"]
            if theirs == binary or not args.again:
                note = "" if theirs == binary else f", by another binary ({theirs[:8]})"
                print(f"{row['label']}: measured already{note}", flush=True)
                continue
        try:
            figures = measure_original(args) if row is ORIGINAL else measure_quantized(args, row)
        except subprocess.CalledProcessError as error:
            sys.exit(f"measure.py: '{row['label']}' failed: exit status {error.returncode}")
        except KeyError as error:
            sys.exit(f"measure.py: '{row['label']}': {error} is missing from the report (an older binary?)")
        done = {"label": row["label"], **key(row), **figures, "binary_sha256": binary}
        if index is None:
            record["rows"].append(done)
        else:
            record["rows"][index] = done
        path.write_text(json.dumps(record, indent=1) + "\n")
        pathlib.Path(args.out + ".md").write_text(table(path.stem, record))


if __name__ == "__main__":
    main()
