#!/usr/bin/env python3
"""Prints the quickstart's table from the JSON files of `billm quantize` and `billm eval`.

One column per method, one row per figure. A figure that was not measured in this run is marked
"(cached)". Only the standard library is used.
"""

import argparse
import json
import sys

PHASES = ("forward", "hessian", "quantize", "pack", "total")


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def size(count):
    return f"{count / 1e6:.1f} MB"


def perplexity(value):
    """Four significant digits, never an exponent: 19.28, 587.3, 10,522."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def column(quantized, quantized_cached, evaluated, evaluated_cached):
    """The cells of one method, top to bottom, as (text, cached)."""
    texts = [
        f"{quantized['nominal_bits']:.2f}",
        f"{quantized['stored_bits']:.3f}",
        size(quantized["bytes_after"]),
    ]
    cells = [(text, quantized_cached) for text in texts]
    cells.append((perplexity(evaluated["ppl"]), evaluated_cached))
    cells += [(f"{quantized['seconds'][phase]:.1f}", quantized_cached) for phase in PHASES]
    cells.append((f"{evaluated['seconds']:.1f}", evaluated_cached))
    return cells


def original_column(quantized, evaluated, evaluated_cached):
    """The original: its size comes from any of the quantizations, its bits are fp16's."""
    before = {size(q["bytes_before"]) for q in quantized}
    if len(before) != 1:
        raise ValueError(f"the results were made from different models: {sorted(before)}")
    cells = [("16", False), ("16", False), (before.pop(), False)]
    cells.append((perplexity(evaluated["ppl"]), evaluated_cached))
    cells += [("", False)] * len(PHASES)
    cells.append((f"{evaluated['seconds']:.1f}", evaluated_cached))
    return cells


def render(headers, columns):
    names = ["nominal bits per weight", "stored bits per weight", "size on disk", "perplexity"]
    names += [f"seconds {phase}" for phase in PHASES] + ["seconds eval"]
    lines = [["", *headers]]
    for i, name in enumerate(names):
        cells = [c[i][0] + (" (cached)" if c[i][1] else "") for c in columns]
        lines.append([name, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for i, line in enumerate(lines):
        cells = [line[0].ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(line[1:], widths[1:])]
        print("  ".join(cells).rstrip())
        if i == 0:
            print("  ".join("-" * width for width in widths))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--original", nargs=2, required=True, metavar=("EVAL.json", "CACHED"),
                        help="the original's eval; CACHED is yes or no")
    parser.add_argument("--row", nargs=5, action="append", required=True,
                        metavar=("LABEL", "QUANTIZE.json", "CACHED", "EVAL.json", "CACHED"))
    arguments = parser.parse_args()
    try:
        rows = [(label, load(q), q_cached == "yes", load(e), e_cached == "yes")
                for label, q, q_cached, e, e_cached in arguments.row]
        columns = [original_column([row[1] for row in rows], load(arguments.original[0]),
                                   arguments.original[1] == "yes")]
        columns += [column(*row[1:]) for row in rows]
    except KeyError as error:
        print(f"print_table: error: a JSON file has no field {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError, TypeError) as error:
        print(f"print_table: error: {error}", file=sys.stderr)
        return 1
    render(["original", *(row[0] for row in rows)], columns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
