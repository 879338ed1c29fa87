"""What a user reads: help texts, version, quiet, the JSON reports, where results go."""

import json
import math
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

COMMANDS = ("quantize", "distill", "eval", "generate", "bench", "inspect", "export", "tokenize")
COMMON = ("--threads", "--quiet", "--json", "--help")
FLAGS = {
    "quantize": ("--model", "--method", "billm", "stbllm", "pbllm", "rtn", "gptq", "--nm", "4:8",
                 "--bits", "--salient", "--salient-metric", "--no-act-order", "--nm-alloc",
                 "adaptive", "uniform", "--calib", "wikitext2", "c4", "ptb", "FILE.txt", "FILE.npy",
                 "--nsamples", "--seqlen", "--seed", "--block-size", "128", "--out", "--device",
                 "auto", "cpu", "cuda", "--data-dir", "--compat", "--resume", "--overwrite", "arb",
                 "--classes", "--salient-classes", "--rotate", "none|in|both", "--rotate-seed",
                 "--embedding-bits", "--head-bits", "wikitext2:3,c4:1",
                 "--sequential", "--tune", "--tune-steps",
                 "--tune-window", "--tune-batch", "--tune-code-rate", "--tune-scale-rate",
                 "--tune-norm-rate"),
    "distill": ("--model", "newest result", "--original", "--out", "--overwrite", "--resume",
                "--dry-run", "--device",
                "--calib", "FILE.npy", "--nsamples", "--seqlen", "--seed", "--data-dir", "--steps",
                "--window", "--batch", "--code-rate", "--scale-rate", "--norm-rate"),
    "eval": ("--ppl", "wikitext2", "c4", "ptb", "FILE.txt", "FILE.npy", "--windows", "--model",
             "newest result", "--seqlen", "--kl", "--data-dir", "--device", "auto", "cpu", "cuda",
             "--run-packed"),
    "bench": ("--model", "newest result", "-p", "--n-prompt", "-n", "--n-gen", "-r",
              "--repetitions", "--layer", "billm", "stbllm", "--shape", "--batch", "--cold",
              "--skip-layers", "--skip-model", "--skip-dense", "--run-head-bits", "--device",
              "--encode"),
    "generate": ("--model", "newest result", "-p", "--prompt", "-f", "--file", "--chat", "--system",
                 "-n", "--n-predict", "--max-new-tokens", "-c", "--ctx-size", "--stop",
                 "--ignore-eos", "--device", "--greedy", "--temp", "--temperature", "--top-k",
                 "--run-head-bits", "--top-p", "--min-p", "--repeat-penalty",
                 "--repetition-penalty", "-s",
             "--seed"),
    "inspect": ("DIR", "newest result"),
    "export": ("--dense", "--model", "--out", "--overwrite", "newest result"),
    "tokenize": ("--model", "--file", "--decode", "TEXT"),
}


class Help(bt.TestCase):
    def test_every_command_is_listed(self):
        text = self.billm("--help").stdout
        for command in COMMANDS:
            self.assertRegex(text, rf"(?m)^  {command}  +\S")
        listed = re.findall(r"(?m)^  (\w+) {2,}\S", text)
        self.assertEqual(sorted(listed), sorted(COMMANDS), "a command without a test here")
        self.assertIn("Exit status", text)

    def test_every_flag_is_explained(self):
        for command in COMMANDS:
            text = self.billm(command, "--help").stdout
            for flag in FLAGS[command] + COMMON:
                with self.subTest(command=command, flag=flag):
                    self.assertRegex(text, rf"(?<![\w-]){re.escape(flag)}(?![\w-])")
            self.assertEqual(self.billm(command, "-h").stdout, text)

    def test_version(self):
        result = self.billm("--version")
        self.assertRegex(result.stdout, r"^billm \d+\.\d+\.\d+\n$")
        self.assertEqual(result.stderr, "")


class Reports(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model")
        self.tokens = self.calibration()
        self.arguments = ("quantize", "--model", self.model, "--calib", self.tokens)

    def test_quiet_prints_nothing(self):
        out = self.dir / "out"
        for command in (self.arguments + ("--out", out), ("eval", "--ppl", self.tokens),
                        ("inspect",), ("export", "--dense", "--out", self.dir / "dense"),
                        ("tokenize", "--model", self.model, "text")):
            result = self.billm(*command, "--quiet", "--threads", "2")
            self.assertEqual((result.stdout, result.stderr), ("", ""), command)
        # Without it the result goes to stdout, progress to stderr.
        result = self.billm("eval", "--ppl", self.tokens)
        self.assertIn("perplexity", result.stdout)
        self.assertIn("eval", result.stderr)

    def test_quantize_report(self):
        report = self.report(*self.arguments, "--method", "stbllm", "--nm", "5:8", "--out",
                             self.dir / "out")
        self.assertEqual(report["output"], str(self.dir / "out"))
        self.assertEqual(report["method"], "stbllm")
        self.assertGreater(report["stored_bits"], report["nominal_bits"])
        self.assertGreater(report["nominal_bits"], 0)
        size = (self.model / "model.safetensors").stat().st_size
        self.assertEqual(report["bytes_before"], size)
        shards = (self.dir / "out").glob("*.safetensors")
        self.assertEqual(report["bytes_after"], sum(p.stat().st_size for p in shards))
        self.assertLess(report["bytes_after"], size)
        seconds = report["seconds"]
        self.assertEqual(list(seconds), ["forward", "hessian", "quantize", "tune", "pack", "write",
                                         "plan", "total"])
        self.assertTrue(all(value >= 0 for value in seconds.values()))
        self.assertGreaterEqual(seconds["total"], max(seconds.values()))
        self.assertGreater(report["peak_rss_bytes"], 10 << 20)
        self.assertEqual((report["blocks"], report["resumed_blocks"]), (2, 0))
        shapes = bt.linear_shapes(bt.tiny_config())
        expected = {f"model.layers.{b}.{name}": list(shape) for b in range(2)
                    for name, shape in shapes.items()}
        self.assertEqual({layer["name"]: layer["shape"] for layer in report["layers"]}, expected)
        for layer in report["layers"]:
            self.assertEqual(layer["nm"], "5:8")
            self.assertTrue(0 < layer["error"] < 1, layer)
            self.assertGreater(layer["stored_bits"], 1)
        weights = [math.prod(layer["shape"]) for layer in report["layers"]]
        bits = [layer["stored_bits"] for layer in report["layers"]]
        mean = sum(b * w for b, w in zip(bits, weights)) / sum(weights)
        self.assertAlmostEqual(report["stored_bits"], mean, places=9)

    def test_tuned_report(self):
        report = self.report(*self.arguments, "--tune", "--tune-steps", "4", "--tune-window", "20",
                             "--out", self.dir / "out")
        self.assertEqual(len(report["tune"]), 2)
        for block in report["tune"]:
            self.assertLessEqual(block["loss_after"], block["loss_before"])
            self.assertIn(block["best_step"], range(5))
        self.assertGreater(report["seconds"]["tune"], 0)
        manifest = json.loads((self.dir / "out" / "manifest.json").read_text())
        self.assertEqual(manifest["settings"]["tune"]["steps"], 4)
        self.assertEqual(len(manifest["tune"]), 2)

    def test_distill_report(self):
        out = self.dir / "out"
        self.billm(*self.arguments, "--out", out, "--quiet")
        result = self.billm("distill", "--original", self.model, "--calib", self.tokens, "--steps",
                            "2", "--window", "20", "--out", self.dir / "better")
        for word in ("KL held out", "stored bits", "adds none"):
            self.assertIn(word, result.stdout)
        manifest = json.loads((self.dir / "better" / "manifest.json").read_text())
        self.assertEqual(manifest["distill"]["steps"], 2)
        self.assertEqual(json.loads((self.dir / "better" / "config.json").read_text()),
                         json.loads((out / "config.json").read_text()))
        self.assertEqual(self.report("inspect")["model"], str(self.dir / "better"))
        self.assertIn(" -  ", self.billm("inspect").stdout)

    def test_dry_run_of_learning(self):
        out = self.dir / "out"
        plain = self.report(*self.arguments, "--dry-run")
        tuned = self.report(*self.arguments, "--dry-run", "--tune")
        self.assertEqual(plain["seconds"]["tune"], 0)
        self.assertGreater(tuned["seconds"]["tune"], 0)
        # The larger of both needs, but the memory of the process itself varies by a few pages.
        self.assertGreater(tuned["cpu_bytes"], 0.99 * plain["cpu_bytes"])
        self.assertIn("tune ", self.billm(*self.arguments, "--dry-run", "--tune").stdout)
        self.assertFalse(out.exists())
        self.billm(*self.arguments, "--out", out, "--quiet")
        distill = ("distill", "--model", out, "--original", self.model, "--calib", self.tokens,
                   "--dry-run", "--out", self.dir / "better")
        few, many = (self.report(*distill, "--steps", steps) for steps in ("10", "1000"))
        self.assertGreater(many["seconds"]["training"], 20 * few["seconds"]["training"])
        self.assertGreater(self.report(*distill, "--code-rate", "0.01")["cpu_bytes"],
                           few["cpu_bytes"])
        for word in ("peak memory", "time", "disk"):
            self.assertIn(word, self.billm(*distill).stdout)
        self.assertFalse((self.dir / "better").exists())
        self.assertFalse((self.dir / "better.partial").exists())

    def test_eval_report(self):
        out = self.dir / "out"
        self.billm(*self.arguments, "--out", out, "--quiet")
        report = self.report("eval", "--ppl", self.tokens, "--windows", "1", "--kl", self.model)
        self.assertEqual(report["model"], str(out))
        self.assertEqual(report["dataset"], str(self.tokens))
        self.assertEqual((report["windows"], report["tokens"], report["seqlen"]), (1, 64, 64))
        self.assertEqual(report["predictions"], 63)
        self.assertTrue(1 < report["ppl"] < 1e9)
        (nll,) = report["window_nll"]
        self.assertAlmostEqual(math.exp(nll / 63) / report["ppl"], 1, delta=1e-9)
        self.assertGreater(report["kl_mean"], 0)
        self.assertEqual(report["kl_model"], str(self.model))
        self.assertGreater(report["seconds"], 0)
        self.assertGreater(report["peak_rss_bytes"], 10 << 20)
        text = self.dir / "text.txt"
        text.write_text("the rain in spain stays mainly in the plain. " * 100)
        report = self.report("eval", "--ppl", text, "--seqlen", "100", "--windows", "3")
        self.assertEqual((report["windows"], report["tokens"], report["seqlen"]), (3, 300, 100))
        # A limit on the windows is printed with the result.
        self.assertIn("--windows", self.billm("eval", "--ppl", text, "--windows", "1").stdout)

    def test_inspect_agrees_with_quantize(self):
        made = self.report(*self.arguments, "--out", self.dir / "out")
        seen = self.report("inspect", self.dir / "out")
        self.assertAlmostEqual(seen["totals"]["stored_bits"], made["stored_bits"], places=9)
        self.assertAlmostEqual(seen["totals"]["nominal_bits"], made["nominal_bits"], places=9)
        for one, other in zip(made["layers"], seen["layers"], strict=True):
            for key, value in one.items():
                self.assertEqual(other[key], value, (one["name"], key))
        table = self.billm("inspect", self.dir / "out").stdout
        for word in ("layer", "shape", "method", "N:M", "salient", "nominal", "stored", "error",
                     "region shares", "model.layers.1.mlp.down_proj", "64x112", "total:"):
            self.assertIn(word, table)

    def test_json_to_a_file(self):
        path = self.dir / "report.json"
        result = self.billm(*self.arguments, "--json", path)
        self.assertIn("stored bits", result.stdout)
        self.assertEqual(json.loads(path.read_text())["method"], "billm")
        # With "-" stdout holds the report and nothing else, progress or not.
        result = self.billm("inspect", "--json", "-")
        self.assertIn("layers", json.loads(result.stdout))

    def test_where_results_go(self):
        first = self.report(*self.arguments, "--method", "rtn")["output"]
        results = self.home / "results"
        self.assertEqual(Path(first), results / "model-rtn")
        newest = self.home / "newest"
        self.assertTrue(newest.is_symlink())
        self.assertEqual(newest.resolve(), Path(first).resolve())
        again = Path(self.report(*self.arguments, "--method", "rtn")["output"])
        self.assertEqual(again, results / "model-rtn-2")
        self.assertEqual(newest.resolve(), again.resolve())
        masked = self.report(*self.arguments, "--method", "stbllm", "--nm", "6:8")["output"]
        self.assertEqual(Path(masked).name, "model-stbllm-6of8")
        # The default model is the newest result, and is named.
        result = self.billm("eval", "--ppl", self.tokens)
        self.assertIn(f"newest result: {masked}", result.stderr)
        self.assertIn(masked, result.stdout)
        self.assertEqual(self.report("inspect")["model"], masked)
        # --out elsewhere becomes the newest, too; a result that is gone is no default.
        out = self.report(*self.arguments, "--out", self.dir / "elsewhere")["output"]
        self.assertEqual(self.report("inspect")["model"], out)
        (self.dir / "elsewhere").rename(self.dir / "gone")
        self.fails(bt.USAGE, "inspect", needles=["--model DIR"])
        self.assertEqual(list(self.home.glob("**/*.lock")), [])
        self.assertEqual(list(self.home.glob("**/*.partial")), [])

    def test_out_with_a_slash_and_relative(self):
        self.billm(*self.arguments, "--out", "below/here/", "--quiet", cwd=self.dir)
        self.assertTrue((self.dir / "below" / "here" / "manifest.json").is_file())
        self.assertEqual((self.home / "newest").resolve(), (self.dir / "below/here").resolve())


if __name__ == "__main__":
    bt.main()
