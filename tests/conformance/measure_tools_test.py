#!/usr/bin/env python3
"""tools/measure.py and tools/plot_frontier.py, with a script that stands in for billm: what is run
with which flags, what is not run again, the figures in the table, the same bytes of the plot."""

import hashlib
import importlib.util
import json
import math
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

# Its results depend on the method and the kind of model; every call goes to calls.txt beside it.
FAKE = '''#!{python}
# {version}
import json, pathlib, sys
words = sys.argv[1:]
with open(pathlib.Path(__file__).with_name("calls.txt"), "a") as calls:
    calls.write(json.dumps(words) + "\\n")
value = lambda name: words[words.index(name) + 1] if name in words else None
seconds = dict(forward=3, hessian=2, quantize=4, tune=0, pack=1, total=11.25)
if words[0] == "quantize":
    method = value("--method")
    if method == "other":
        sys.exit(2)
    pathlib.Path(value("--out")).write_text(json.dumps([method, 0]))
    layers = [dict(shape=[2, 3], error=0.5), dict(shape=[4, 6], error=0.25)]
    report = dict(method=method, nominal_bits=1.125, stored_bits=dict(billm=2.25, arb=2.5)[method],
                  seconds=seconds, peak_rss_bytes=7 * 10**6, layers=layers)
    if "--tune" in words:
        layers[0]["error"] = None
        report["tune"] = [dict(loss_before=1, loss_after=0.5, best_step=4, seconds=9)]
elif words[0] == "distill":
    method, steps = json.loads(pathlib.Path(value("--model")).read_text())
    pathlib.Path(value("--out")).write_text(json.dumps([method, int(value("--steps"))]))
    report = dict(nominal_bits=1.125, stored_bits=2.0, peak_rss_bytes=9 * 10**6,
                  distill=dict(seconds=21.5))
elif value("--model") == "path/to/demo":
    report = dict(nll=[27.0, 27.0, 28.0])
else:
    method, steps = json.loads(pathlib.Path(value("--model")).read_text())
    report = dict(nll=[50.0 - steps, 52.0, 60.0])
if words[0] == "eval":
    nll = report.pop("nll")[: int(value("--windows") or 3)]
    report.update(window_nll=nll, ppl=2.718281828459045 ** (sum(nll) / len(nll) / 9), seqlen=10,
                  windows=len(nll), seconds=1.5)
    if value("--kl"):
        report["kl_mean"] = 1.75
pathlib.Path(value("--json")).write_text(json.dumps(report))
'''

ROWS = ("BiLLM: --method billm --calib dir/own.npy --nsamples 4",
        "ARB, distilled: --method arb => --steps 9",
        "ARB, own text: --method arb => --steps 9 --calib c4",
        "BiLLM, tuned: --method billm --tune")


class MeasureTools(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.out = self.dir / "table"
        self.write_fake("one")

    def write_fake(self, version):
        self.fake = self.dir / "billm"
        self.fake.write_text(FAKE.format(python=sys.executable, version=version))
        self.fake.chmod(0o755)

    def tool(self, name, *arguments):
        return subprocess.run([sys.executable, str(bt.ROOT / "tools" / name),
                               *map(str, arguments)], capture_output=True, text=True, cwd=self.dir)

    def measure(self, *arguments, texts=("wiki=dir/eval.npy", "c4=c4:1")):
        result = self.tool("measure.py", "--binary", self.fake, "--model", "path/to/demo",
                           "--calib", "dir/calib.npy", "--kl", "--data-dir", "data", "--work",
                           self.dir / "work", "--out", self.out, *arguments,
                           *(word for text in texts for word in ("--ppl", text)))
        self.assertNotIn("Traceback", result.stderr)
        return result

    def measured(self, *arguments):
        """The calls of a run that succeeds, and the record."""
        calls = self.dir / "calls.txt"
        calls.write_text("")
        result = self.measure(*arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return ([json.loads(line) for line in calls.read_text().splitlines()],
                json.loads(self.out.with_suffix(".json").read_text()))

    def test_commands(self):
        calls, _ = self.measured("--original-row", *ROWS[:3])
        self.assertEqual([c[0] for c in calls],
                         ["eval"] * 2 + ["quantize"] + ["eval"] * 2
                         + ["quantize", "distill", "eval", "eval"] * 2)
        value = lambda call, name: call[call.index(name) + 1] if name in call else None
        self.assertTrue(all(value(c, "--data-dir") == "data" for c in calls))
        # A row's own calibration replaces the default; distillation takes the row's.
        self.assertEqual([value(c, "--calib") for c in calls if c[0] != "eval"],
                         ["dir/own.npy", "dir/calib.npy", "dir/calib.npy", "dir/calib.npy", "c4"])
        self.assertEqual(calls[2].count("--calib"), 1)
        calls, _ = self.measured("Small: --method arb --nsamples=4 --seqlen 8 => --steps 2")
        self.assertEqual((value(calls[1], "--nsamples"), value(calls[1], "--seqlen")), ("4", "8"))
        evals = [c for c in calls if c[0] == "eval"]
        self.assertEqual([value(c, "--ppl") for c in evals], ["dir/eval.npy", "c4"])
        self.assertEqual([value(c, "--windows") for c in evals], [None, "1"])
        self.assertEqual([value(c, "--kl") for c in evals], ["path/to/demo", None])
        self.assertEqual(value(evals[0], "--model"), value(calls[1], "--out"))

    def test_figures(self):
        _, record = self.measured("--original-row", *ROWS)
        original, billm, arb, _, tuned = record["rows"]
        self.assertEqual((original["method"], original["stored_bits"]), ("original", 16))
        self.assertIsNone(original["texts"]["wiki"]["kl"])
        self.assertEqual(billm["flags"], "--method billm --calib own.npy --nsamples 4")
        self.assertEqual(billm["mean_error"], (6 * 0.5 + 24 * 0.25) / 30)
        self.assertEqual((billm["tuned"], tuned["tuned"]), (False, True))
        self.assertEqual((arb["mean_error"], tuned["mean_error"]), (None, None))
        self.assertEqual((arb["stored_bits"], arb["distill_seconds"]), (2.0, 21.5))
        self.assertEqual((billm["peak_rss_bytes"], arb["peak_rss_bytes"]), (7e6, 9e6))
        wiki = billm["texts"]["wiki"]
        self.assertAlmostEqual(wiki["ppl"], math.exp(162 / 27), places=6)
        self.assertAlmostEqual(wiki["ppl_first2"], math.exp(102 / 18), places=6)
        self.assertEqual((wiki["kl"], wiki["windows"]), (1.75, 3))
        c4 = billm["texts"]["c4"]
        self.assertEqual((c4["windows"], c4["ppl_first2"], c4["kl"]), (1, None, None))
        text = self.out.with_suffix(".md").read_text()
        binary = hashlib.sha256(self.fake.read_bytes()).hexdigest()
        self.assertIn(f"| BiLLM | `--method billm --calib own.npy --nsamples 4` | 1.125 | 2.250 | "
                      f"403.43 | 258.67 | 289.07 | 1.750 | 11 |  | 7 | {binary[:8]} |", text)
        self.assertIn("`--method arb => --steps 9` | 1.125 | 2.000 |", text)
        self.assertIn("billm quantize --model demo FLAGS --calib calib.npy", text)
        self.assertIn("billm eval --model RESULT --ppl c4 --windows 1", text)
        self.assertNotIn(str(self.dir), text + self.out.with_suffix(".json").read_text())

    def test_what_is_not_run_again(self):
        _, first = self.measured("--original-row", *ROWS)
        calls, again = self.measured("--original-row", *ROWS)
        self.assertEqual((calls, again), ([], first))
        self.write_fake("two")
        calls, again = self.measured("--original-row", *ROWS)
        self.assertEqual((calls, again), ([], first))
        calls, again = self.measured("--again", ROWS[1], "New: --method arb")
        self.assertEqual([c[0] for c in calls],
                         ["quantize", "distill", "eval", "eval", "quantize", "eval", "eval"])
        self.assertEqual([r["label"] for r in again["rows"]],
                         [r["label"] for r in first["rows"]] + ["New"])
        changed = [r["binary_sha256"] != first["rows"][0]["binary_sha256"] for r in again["rows"]]
        self.assertEqual(changed, [False, False, True, False, False, True])
        # Figures of other texts do not go into the same table.
        result = self.measure(ROWS[0], texts=("wiki=other.npy",))
        self.assertEqual(result.returncode, 1)
        self.assertIn("settings: expected", result.stderr)

    def test_errors(self):
        self.assertIn("'no label': expected 'label: flags",
                      self.measure("no label").stderr)
        self.assertIn("expected NAME=TEXT", self.measure(texts=("wikitext2",)).stderr)
        result = self.measure("Unknown: --method other")
        self.assertEqual(result.returncode, 1)
        self.assertIn("measure.py: 'Unknown' failed: exit status 2", result.stderr)

    def test_plot(self):
        self.measured("--original-row", *ROWS)
        published = bt.ROOT / "docs" / "measurements" / "published.json"
        reference = json.loads(published.read_text()) | {"text": "eval.npy"}
        (self.dir / "reference.json").write_text(json.dumps(reference))
        for name in ("a.svg", "b.svg"):
            result = self.tool("plot_frontier.py", "--out", name, "--reference", "reference.json",
                               "table.json")
            self.assertEqual(result.returncode, 0, result.stderr)
        svg = (self.dir / "a.svg").read_bytes()
        self.assertEqual(svg, (self.dir / "b.svg").read_bytes())
        self.assertIn(b"</svg>", svg)
        self.assertNotIn(b"<dc:date>", svg)
        # The distilled ARB has the fewest bits and the least perplexity.
        first2 = math.exp((50 - 9 + 52) / 18)
        self.assertEqual(result.stdout.splitlines()[2:],
                         [f"| 2.000 | {first2:.2f} | ARB, distilled |"])
        # The published figures are of another text.
        result = self.tool("plot_frontier.py", "--out", "c.svg", "--reference", published,
                           "table.json")
        self.assertEqual(result.returncode, 1)
        self.assertIn("perplexities of different texts", result.stderr)
        self.assertFalse((self.dir / "c.svg").exists())


class Hull(unittest.TestCase):
    def test_points_on_it(self):
        spec = importlib.util.spec_from_file_location("plot_frontier",
                                                      bt.ROOT / "tools" / "plot_frontier.py")
        plot = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(plot)
        # The logarithms of (1, 3), (2, 2), (3, 0) bend upwards: only the outer two are on the hull.
        points = [{"stored_bits": bits, "ppl": math.exp(log), "label": str(i)}
                  for i, (bits, log) in enumerate([(3, 0), (2, 2), (1, 3), (1, 4), (4, 1)])]
        self.assertEqual([p["label"] for p in plot.lower_hull(points)], ["2", "0"])
        points[1]["ppl"] = math.exp(1)
        self.assertEqual([p["label"] for p in plot.lower_hull(points)], ["2", "1", "0"])


if __name__ == "__main__":
    if importlib.util.find_spec("matplotlib") is None:
        bt.skip("no matplotlib in this Python (tools/requirements.txt)")
    bt.main()
