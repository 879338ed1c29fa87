"""The same command gives the same bytes, for any number of threads and however often it runs.

The tiny model's widths leave a shorter last block and, at M = 16, a tail behind the last group.
Each result is also read by the independent decoder, which checks that exactly N of every M are
kept.
"""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

VARIANTS = {
    "billm": ("--method", "billm"),
    "stbllm": ("--method", "stbllm", "--nm", "4:8"),
    "stbllm adaptive": ("--method", "stbllm", "--nm", "5:8", "--nm-alloc", "adaptive"),
    "stbllm with a tail": ("--method", "stbllm", "--nm", "5:16"),
    "stbllm 2:4, means": ("--method", "stbllm", "--nm", "2:4", "--offsets", "block"),
    "rtn": ("--method", "rtn"),
    "rtn 3 bits": ("--method", "rtn", "--bits", "3"),
    "gptq": ("--method", "gptq"),
    "gptq 4 bits, natural order": ("--method", "gptq", "--bits", "4", "--no-act-order"),
    "pbllm": ("--method", "pbllm"),
    "pbllm, much by magnitude": ("--method", "pbllm", "--salient", "0.3", "--salient-metric",
                                 "magnitude"),
    "reference": ("--method", "billm", "--compat", "reference"),
    "arb": ("--method", "arb"),
    "one class": ("--method", "arb", "--classes", "1"),
    "rotated": ("--method", "arb", "--rotate", "both", "--rotate-seed", "5"),
    "trellis": ("--method", "trellis", "--bits", "1.5", "--targets", "corrected"),
    "inputs rotated": ("--method", "gptq", "--rotate", "in"),
    "rotated, tuned": ("--method", "arb", "--classes", "1", "--rotate", "both", "--tune",
                       "--tune-steps", "5", "--tune-window", "50"),
    "corrected": ("--method", "gptq", "--targets", "corrected", "--sink-weight", "4"),
    "corrected, tuned": ("--method", "arb", "--targets", "corrected", "--stream-share", "0.25",
                         "--tune", "--tune-steps", "5", "--tune-window", "50"),
    "sequential": ("--method", "billm", "--sequential"),
    "tuned": ("--method", "billm", "--tune", "--tune-steps", "6", "--tune-window", "40"),
    "arb, tuned": ("--method", "arb", "--tune", "--tune-steps", "5", "--tune-window", "50"),
    "stbllm, tuned": ("--method", "stbllm", "--tune", "--tune-steps", "6", "--tune-window", "40"),
    "blocks, f16": ("--method", "billm", "--feedback", "blocks", "--scales", "f16"),
}


class Determinism(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model", hidden=96, intermediate=152, blocks=2)
        self.tokens = self.calibration(rows=3, length=100)

    def quantize(self, name, *arguments):
        out = self.dir / name
        blocks = () if "trellis" in arguments else ("--block-size", "64")
        report = self.report("quantize", "--model", self.model, "--calib", self.tokens, *blocks,
                             "--out", out, *arguments)
        return out, report

    def test_threads_and_runs(self):
        for name, arguments in VARIANTS.items():
            with self.subTest(name=name):
                prefix = name.replace(" ", "-").replace(",", "").replace(":", "of")
                first, report = self.quantize(f"{prefix}-1", *arguments, "--threads", "1")
                expected = bt.digests(first)
                self.assertIn("manifest.json", expected)
                for threads in ("2", "3") if name in ("billm", "gptq") else ("3",):
                    out, other = self.quantize(f"{prefix}-{threads}", *arguments, "--threads",
                                               threads)
                    self.assertEqual(bt.digests(out), expected)
                    self.assertEqual(other["layers"], report["layers"])
                self.check_strict(first)

    def check_strict(self, result):
        check = subprocess.run([bt.python(), bt.READ_PACKED, "--check", result],
                               capture_output=True, text=True)
        self.assertEqual(check.returncode, 0, check.stderr)
        self.assertIn("strict N:M checked", check.stdout)

    def test_sequential_and_tuning_change_the_result(self):
        plain, _ = self.quantize("plain")
        shard = "model-00001-of-00003.safetensors"
        for name, flags in {"sequential": ["--sequential"], "tuned": ["--tune"]}.items():
            out, _ = self.quantize(name, *flags)
            self.assertNotEqual(bt.digests(out)[shard], bt.digests(plain)[shard], name)

    def test_the_rate_of_codes_follows_from_the_targets(self):
        few = ("--tune", "--tune-steps", "1", "--tune-window", "50")
        for flags, rate in {(): 0.01, ("--targets", "corrected"): 0.0003,
                            ("--targets", "corrected", "--tune-code-rate", "0.01"): 0.01}.items():
            out, _ = self.quantize("rate", "--method", "rtn", *few, *flags, "--overwrite")
            settings = json.loads((out / "manifest.json").read_text())["settings"]
            self.assertEqual(settings["tune"]["code_rate"], rate, flags)

    def test_distillation(self):
        packed, report = self.quantize("packed", "--method", "stbllm")
        before = bt.digests(packed)
        arguments = ("distill", "--model", packed, "--original", self.model, "--calib",
                     self.tokens, "--steps", "8", "--window", "40")
        reports = [self.report(*arguments, "--out", self.dir / f"distilled-{threads}", "--threads",
                               threads) for threads in ("1", "2", "3")]
        expected = bt.digests(self.dir / "distilled-1")
        for threads in ("2", "3"):
            self.assertEqual(bt.digests(self.dir / f"distilled-{threads}"), expected)
        self.assertEqual(bt.digests(packed), before)
        self.assertEqual(reports[0]["stored_bits"], report["stored_bits"])
        self.assertEqual(len(reports[0]["losses"]), 8)
        distilled = reports[0]["distill"]
        self.assertLessEqual(distilled["loss_after"], distilled["loss_before"])
        self.check_strict(self.dir / "distilled-1")
        # What stands in the file is what was measured, and inspect knows that it knows no error.
        layers = self.report("inspect", self.dir / "distilled-1")["layers"]
        self.assertEqual({layer["error"] for layer in layers}, {None})

    def test_defaults_repeated(self):
        text = self.dir / "text.txt"
        text.write_text("the rain in spain stays mainly in the plain. " * 300)
        arguments = ("quantize", "--model", self.model, "--calib", text, "--nsamples", "4",
                     "--seqlen", "64", "--quiet")
        for name in ("one", "two"):
            self.billm(*arguments, "--out", self.dir / name)
        self.assertEqual(bt.digests(self.dir / "one"), bt.digests(self.dir / "two"))
        self.billm(*arguments, "--out", self.dir / "seed", "--seed", "1")
        seed, one = bt.digests(self.dir / "seed"), bt.digests(self.dir / "one")
        shard = "model-00001-of-00003.safetensors"
        self.assertNotEqual(seed[shard], one[shard])
        self.assertEqual(seed["tokenizer.json"], one["tokenizer.json"])

    def test_eval_and_export(self):
        out, _ = self.quantize("packed", "--method", "stbllm")
        tokens = self.calibration(rows=5, length=50, seed=2)
        reports = [self.report("eval", "--model", out, "--ppl", tokens, "--kl", self.model,
                               "--threads", threads) for threads in ("1", "2", "3")]
        for report in reports[1:]:
            self.assertEqual(report["ppl"], reports[0]["ppl"])
            self.assertEqual(report["kl_mean"], reports[0]["kl_mean"])
        for threads in ("1", "3"):
            self.billm("export", "--dense", "--model", out, "--out", self.dir / f"dense-{threads}",
                       "--threads", threads, "--quiet")
        self.assertEqual(bt.digests(self.dir / "dense-1"), bt.digests(self.dir / "dense-3"))

    def test_export_is_what_the_decoder_reads(self):
        sys.path.insert(0, str(bt.READ_PACKED.parent))
        import read_packed

        out, _ = self.quantize("packed", "--method", "stbllm", "--nm", "5:8")
        dense = self.dir / "dense"
        self.billm("export", "--dense", "--model", out, "--out", dense, "--quiet")
        packed = read_packed.open_packed(out)
        shards = {}
        for path in sorted(dense.glob("*.safetensors")):
            header, data = bt.read_parts(path)
            shards |= {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()
                       if name != "__metadata__"}
        names = read_packed.modules(packed)
        self.assertEqual(len(names), 14)
        for name in names:
            weight = read_packed.decode(packed, name).astype("<f2")
            self.assertEqual(shards[f"{name}.weight"], weight.tobytes(), name)
        header, data = bt.read_parts(self.model / "model.safetensors")
        for name, entry in header.items():  # the others as they were
            if name != "__metadata__" and name.removesuffix(".weight") not in names:
                self.assertEqual(shards[name], data[slice(*entry["data_offsets"])], name)


if __name__ == "__main__":
    bt.main()
