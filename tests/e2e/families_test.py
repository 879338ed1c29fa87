"""Every model family from checkpoint to perplexity: quantize, eval from the packed file, export.

The models are those of tests/support/make_tiny_model.py; transformers computes the perplexities of
the originals and of the exported checkpoints.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

sys.path.insert(0, str(bt.READ_PACKED.parent))
import read_packed

# Of each: the linears of a block.
CASES = {"gqa": 7, "biases": 7, "base": 7, "sliding": 7, "qwen2_tied": 7, "qwen3_bias": 7, "opt": 6,
         "opt3": 6, "opt_350m": 6, "opt_bare": 6}
METHODS = ("billm", "arb")
TUNED = ("biases", "sliding", "qwen3_bias", "opt", "opt_350m", "opt_bare")  # and distilled
BLOCKS = 3
FEW_STEPS = ("--tune", "--tune-steps", 4, "--tune-window", 16)


class Families(bt.SharedTestCase):
    """One directory for the class; setUpClass copies the models."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.models = cls.maker.dir / "models"
        bt.tiny_models(cls.models, [*CASES, "long"])

    def by_transformers(self, models):
        """{model directory: perplexity} of {model directory: tokens}."""
        pairs = [x for pair in models.items() for x in pair]
        result = bt.support("reference_nll.py", *pairs)
        self.assertEqual(result.returncode, 0, result.stderr[-2000:])
        lines = [line.split() for line in result.stdout.splitlines()]
        self.assertEqual(len(lines), len(models))
        return {model: np.exp(float(nll) / int(count))
                for model, (nll, count) in zip(models, lines)}

    def evaluate(self, model, tokens):
        return self.report("eval", "--model", model, "--ppl", tokens)["ppl"]

    def check_packed(self, result, linears):
        """The independent reader sees every linear; nothing else is quantized."""
        packed = read_packed.open_packed(result)
        names = read_packed.modules(packed)
        self.assertEqual(len(names), BLOCKS * linears)
        for name in names:
            weight, keep = read_packed.Module(packed, name).decode()
            self.assertTrue(np.isfinite(weight).all())

    def test_dry_run_counts_every_weight(self):
        """Though it reads config.json alone. Four cases: each probes the machine for seconds."""
        for case in ("biases", "qwen3_bias", "opt", "opt_350m"):
            model = self.models / case
            seen = self.report("quantize", "--dry-run", "--model", model, "--calib",
                               model / "tokens.npy", "--method", "rtn")
            header, _ = bt.read_parts(model / "model.safetensors")
            weights = sum(int(np.prod(entry["shape"])) for name, entry in header.items()
                          if name != "__metadata__")
            self.assertEqual(seen["weights"] + seen["other_weights"], weights, case)

    def test_quantize_eval_export(self):
        ours, tokens = {}, {}
        for case, linears in CASES.items():
            model = self.models / case
            windows = model / "tokens.npy"
            tokens[model], ours[model] = windows, self.evaluate(model, windows)
            for method in METHODS + (("tuned",) if case in TUNED else ()):
                with self.subTest(case=case, method=method):
                    packed, dense = self.dir / f"{case}-{method}", self.dir / f"{case}-{method}-d"
                    how = ("billm", *FEW_STEPS) if method == "tuned" else (method,)
                    self.billm("quantize", "--model", model, "--calib", windows, "--out", packed,
                               "--quiet", "--method", *how)
                    if method == "tuned":
                        learned, packed = packed, self.dir / f"{case}-distilled"
                        self.billm("distill", "--model", learned, "--original", model, "--calib",
                                   windows, "--steps", 2, "--window", 16, "--out", packed,
                                   "--quiet")
                    self.check_packed(packed, linears)
                    self.billm("export", "--dense", "--model", packed, "--out", dense, "--quiet")
                    ppl = self.evaluate(packed, windows)
                    self.assertNotAlmostEqual(ppl / ours[model], 1, places=3)
                    tokens[dense], ours[dense] = windows, ppl
        expected = self.by_transformers(tokens)
        for model, ppl in ours.items():
            with self.subTest(model=model.name):
                self.assertTrue(np.isfinite(ppl))
                # Exported weights are rounded to fp16.
                self.assertLess(abs(ppl / expected[model] - 1), 1e-3, (ppl, expected[model]))

    def test_biases_and_other_tensors_stay(self):
        for case in ("opt_350m", "biases"):
            model, out = self.models / case, self.dir / case
            self.billm("quantize", "--model", model, "--calib", model / "tokens.npy", "--out", out,
                       "--quiet", "--method", "billm")
            before, data = bt.read_parts(model / "model.safetensors")
            after, kept = bt.read_parts(sorted(out.glob("*.safetensors"))[-1])
            names = {name for name in after if name != "__metadata__"}
            self.assertTrue(any(name.endswith("fc1.bias") or name.endswith("q_proj.bias")
                                for name in names), names)
            for name in names:
                (begin, end), (first, last) = (x[name]["data_offsets"] for x in (before, after))
                self.assertEqual(data[begin:end], kept[first:last], name)
            config = json.loads((out / "config.json").read_text())
            others = config["quantization_config"]["modules_not_quantized"]
            self.assertEqual(others, {"opt_350m": ["project_in", "project_out"],
                                      "biases": ["lm_head"]}[case])

    def test_sequences_longer_than_the_positions(self):
        opt, tokens = self.models / "opt", self.calibration(vocab=97, rows=2, length=257)
        text = "max_position_embeddings: expected at least the sequence length 257, got 256"
        out = self.dir / "out"
        self.fails(bt.BAD_INPUT, "eval", "--model", opt, "--ppl", tokens, needles=[text])
        self.fails(bt.BAD_INPUT, "quantize", "--model", opt, "--calib", tokens, "--out", out,
                   "--method", "billm", needles=[text, "--seqlen 256"])
        self.assertEqual(list(self.dir.glob("out*")), [])
        # Rotary positions go on, with one warning.
        result = self.billm("eval", "--model", self.models / "long", "--ppl",
                            self.calibration(vocab=97, rows=3, length=21), "--quiet")
        self.assertEqual(result.stderr, "billm: warning: max_position_embeddings: expected at least "
                         "the sequence length 21, got 20: the model may not have learned such "
                         "positions\n")


if __name__ == "__main__":
    bt.main()
