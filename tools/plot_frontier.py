#!/usr/bin/env python3
"""Draws perplexity (log axis) against stored bits as an SVG and prints the lower hull as a table.

    tools/plot_frontier.py --out docs/measurements/frontier.svg \
        --reference docs/measurements/published.json NAME.json [NAME.json ...]

NAME.json are records of tools/measure.py; their method chooses the marker, and it is filled where
the weights were learned (block tuning or distillation). The reference file lists figures of other
programs. All are of one text; by default of its first two windows, since that is all that is known
of some of the others. The hull is the lower convex one of billm's points (bits, log perplexity),
down to the best of them.

The same input gives the same bytes with the same matplotlib.
"""
import argparse
import json
import math
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend comes first)
from matplotlib.lines import Line2D  # noqa: E402

# family: (name in the legend, marker, colour). The first rows are methods of billm.
BILLM = {
    "trellis": ("billm: trellis", "h", "#b3262e"),
    "dbf": ("billm: two binary factors (DBF)", "<", "#3f8f8f"),
    "billm": ("billm: BiLLM", "o", "#1f6fb4"),
    "stbllm": ("billm: STBLLM", "s", "#d95f02"),
    "arb": ("billm: ARB-LLM RC", "D", "#1b8a5a"),
    "pbllm": ("billm: PB-LLM", "P", "#7b4fb5"),
    "gptq": ("billm: GPTQ", "p", "#4d9de0"),
    "rtn": ("billm: round to nearest", "v", "#a6761d"),
}
REFERENCE = {
    "published code": ("published code, packed plainly", "X", "#777777"),
    "llama.cpp": ("llama.cpp", "^", "#c2185b"),
    "trial": ("crude trial of block tuning", "*", "#6b6b1f"),
}
TOP = 1e5  # worse points stand on the upper edge with their value in the label
LABEL_SIZE, MARKER_SIZE = 7.5, 6.5


def fail(message):
    sys.exit(f"plot_frontier.py: {message}")


def measured_points(path, text, figure):
    """(points, what their perplexity is of, the original's or None) of a record of measure.py."""
    record = json.loads(pathlib.Path(path).read_text())
    texts = {t["name"]: t["source"] for t in record["settings"]["texts"]}
    name = text or next(iter(texts))
    if name not in texts:
        fail(f"{path}: no text {name}: it has {', '.join(texts)}")
    points, original, windows = [], None, 2
    for row in record["rows"]:
        ppl = row["texts"][name][figure]
        if figure == "ppl":
            windows = row["texts"][name]["windows"]
        if ppl is None:
            fail(f"{path}: {row['label']}: only one window; give --all-windows")
        if row["method"] == "original":
            original = ppl
        elif row["method"] not in BILLM:
            fail(f"{path}: {row['label']}: no marker for the method {row['method']}")
        else:
            points.append({"family": row["method"], "label": row["label"], "ppl": ppl,
                           "stored_bits": row["stored_bits"],
                           "learned": row["tuned"] or row["distill_flags"] is not None})
    return points, describe(texts[name], windows), original


def describe(text, windows):
    return f"the first {windows} windows of {text}"


def reference_points(path, figure):
    record = json.loads(pathlib.Path(path).read_text())
    known = [{**p, "ppl": p[figure]} for p in record["points"] if p[figure] is not None]
    original = next((p["ppl"] for p in known if p["family"] == "original"), None)
    points = [p for p in known if p["family"] != "original"]
    for point in points:
        if point["family"] not in REFERENCE:
            fail(f"{path}: {point['label']}: no marker for the family {point['family']}")
    windows = record["windows"] if figure == "ppl" else 2
    return points, describe(record["text"], windows), original


def lower_hull(points):
    """From the fewest bits to the least perplexity."""
    hull = []
    for point in sorted(points, key=lambda p: (p["stored_bits"], p["ppl"])):
        if hull and point["ppl"] >= min(p["ppl"] for p in hull):
            continue  # more bits and no better
        while len(hull) > 1 and not is_below(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def is_below(left, middle, right):
    """Whether `middle` lies below the line from `left` to `right`."""
    part = (middle["stored_bits"] - left["stored_bits"]) / (right["stored_bits"]
                                                            - left["stored_bits"])
    line = math.log(left["ppl"]) * (1 - part) + math.log(right["ppl"]) * part
    return math.log(middle["ppl"]) < line


def place_labels(figure, axes, points, hull, labelled):
    """Beside each point of `labelled`, where it covers least of the points, the hull's line and the
    labels before it; the nearest of such places."""
    scale = figure.dpi / 72
    places = {id(p): axes.transData.transform((p["stored_bits"], min(p["ppl"], TOP)))
              for p in points}
    half = MARKER_SIZE / 2 * scale
    taken = [(x - half, y - half, x + half, y + half) for x, y in places.values()]
    for start, end in zip(hull, hull[1:]):
        for step in range(1, 40):
            x, y = (a + (b - a) * step / 40 for a, b in zip(places[id(start)], places[id(end)]))
            taken.append((x - scale, y - scale, x + scale, y + scale))
    frame = axes.get_window_extent()
    height = LABEL_SIZE * 1.15 * scale
    for point in labelled:
        text = point["label"] + (f": {point['ppl']:.1e}" if point["ppl"] > TOP else "")
        width = 0.56 * LABEL_SIZE * len(text) * scale
        x, y = places[id(point)]
        choices = []
        for step in range(5):
            for up in ((0,) if step == 0 else (step, -step)):
                for left in (x + 2 * half, x - 2 * half - width, x - width / 2):
                    if up != 0 or left != x - width / 2:
                        middle = y + up * height
                        choices.append((left, middle - height / 2, left + width,
                                        middle + height / 2))
        inside = [b for b in choices if b[0] > frame.x0 and b[2] < frame.x1 and b[1] > frame.y0]
        box = min(inside or choices, key=lambda b: sum(overlap(b, other) for other in taken))
        taken.append(box)
        colour = {**BILLM, **REFERENCE}[point["family"]][2]
        axes.annotate(text, axes.transData.inverted().transform((box[0], (box[1] + box[3]) / 2)),
                      va="center", fontsize=LABEL_SIZE, color=colour, annotation_clip=False)


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def legend_entries(points):
    used = {(p["family"], p.get("learned", False)) for p in points}
    entries = []
    for family, (name, marker, colour) in {**BILLM, **REFERENCE}.items():
        for learned in (False, True):
            if (family, learned) in used:
                entries.append(Line2D([], [], linestyle="", marker=marker, markersize=MARKER_SIZE,
                                      color=colour, label=name + (", learned" if learned else ""),
                                      markerfacecolor=face(family, learned, colour)))
    return entries


def face(family, learned, colour):
    return colour if learned or family in REFERENCE else "white"


def draw(measured, reference, original, hull, what, out):
    matplotlib.rcParams.update({"svg.hashsalt": "billm", "svg.fonttype": "path", "font.size": 9,
                                "axes.axisbelow": True})
    figure, axes = plt.subplots(figsize=(9, 6), facecolor="white")
    axes.set_yscale("log")
    points = measured + reference
    bits = [p["stored_bits"] for p in points]
    lows = [p["ppl"] for p in points] + ([original] if original else [])
    axes.set_xlim(min(bits) - 0.15, max(bits) + 0.35)
    axes.set_ylim(min(lows) / 1.25, min(max(lows), TOP) * 1.6)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    for point in reference + measured:
        _, marker, colour = {**BILLM, **REFERENCE}[point["family"]]
        axes.plot(point["stored_bits"], min(point["ppl"], TOP), linestyle="", marker=marker,
                  markersize=MARKER_SIZE, color=colour, clip_on=False, zorder=3,
                  markerfacecolor=face(point["family"], point.get("learned", False), colour))
    axes.plot([p["stored_bits"] for p in hull], [p["ppl"] for p in hull], color="#333333",
              linewidth=1, zorder=2)
    entries = legend_entries(points)
    entries.append(Line2D([], [], color="#333333", linewidth=1, label="lower hull of billm"))
    if original:
        axes.axhline(original, color="#333333", linewidth=0.8, linestyle="--")
        entries.append(Line2D([], [], color="#333333", linewidth=0.8, linestyle="--",
                              label=f"original, 16 bits: {original:.1f}"))
    axes.set_xlabel("stored bits per weight of the quantized layers, everything counted")
    axes.set_ylabel(f"perplexity of {what}")
    axes.legend(handles=entries, fontsize=LABEL_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1),
                borderaxespad=0, frameon=False)
    figure.tight_layout()
    others = [p for p in measured if p["ppl"] > TOP and p not in hull]
    place_labels(figure, axes, points, hull, hull + reference + others)
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="FILE.svg")
    parser.add_argument("--reference", metavar="FILE.json")
    parser.add_argument("--text", metavar="NAME", help="default: each record's first")
    parser.add_argument("--all-windows", action="store_true",
                        help="not the first two; references without that figure are left out")
    parser.add_argument("records", nargs="+", metavar="NAME.json")
    args = parser.parse_args()
    figure = "ppl" if args.all_windows else "ppl_first2"
    measured, reference, originals, sources = [], [], [], {}
    for path in args.records:
        points, sources[path], original = measured_points(path, args.text, figure)
        measured += points
        originals.append(original)
    if args.reference:
        reference, sources[args.reference], original = reference_points(args.reference, figure)
        originals.append(original)
    if len(set(sources.values())) > 1:
        named = ", ".join(f"{path}: {source}" for path, source in sources.items())
        fail(f"perplexities of different texts: {named}")
    if not measured:
        fail("no row but the original")
    hull = lower_hull(measured)
    what = sources[args.records[0]]
    draw(measured, reference, next((o for o in originals if o), None), hull, what, args.out)
    print(f"| stored bits | perplexity of {what} | setting |\n| --- | --- | --- |")
    for point in hull:
        print(f"| {point['stored_bits']:.3f} | {point['ppl']:.2f} | {point['label']} |")


if __name__ == "__main__":
    main()
