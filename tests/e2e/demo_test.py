"""The whole way on a real model, without any data set: demo model, shipped text, two windows.

Quantize by BiLLM and STBLLM, measure perplexity from the packed files, and compare with what others
compute: transformers for the original and for the exported model, the tokenizers library for the
ids, the independent decoder for every weight of a block and for the sizes.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

LENGTH, WINDOWS = 256, 2
EVALUATION = bt.DEMO_TEXT / "evaluation.txt"
METHODS = {"billm": ("--method", "billm"), "stbllm": ("--method", "stbllm", "--nm", "4:8")}
# The targets of docs/format.md, "What each part costs".
STORED_BITS = {"billm": 2.4, "stbllm": 2.6}
SIGNIFICANT = 5e-4  # relative: four significant digits; the export is rounded to fp16


class Demo(bt.TestCase):
    """The results are made once for the class; setUpClass makes them."""

    @classmethod
    def setUpClass(cls):
        cls.model = bt.demo_model()
        cls.results, cls.reports, cls.evaluated = {}, {}, {}
        maker = cls()  # an instance for its directory, which lives as long as the class
        maker.setUp()
        cls.addClassCleanup(maker.doCleanups)
        for name, arguments in METHODS.items():
            started = time.monotonic()
            cls.results[name] = maker.dir / name
            cls.reports[name] = maker.report(
                "quantize", "--model", cls.model, *arguments, "--calib",
                bt.DEMO_TEXT / "calibration.txt", "--nsamples", 4, "--seqlen", LENGTH, "--out",
                cls.results[name])
            print(f"{name}: {time.monotonic() - started:.1f} s,", cls.reports[name]["seconds"])
        cls.dense = maker.dir / "dense"
        maker.billm("export", "--dense", "--model", cls.results["stbllm"], "--out", cls.dense,
                    "--quiet")
        cls.tokens = maker.dir / "windows.npy"
        ids = maker.report("tokenize", "--model", cls.model, "--file", EVALUATION)["ids"]
        np.save(cls.tokens, np.array(ids[: LENGTH * WINDOWS], dtype=np.int32).reshape(-1, LENGTH))
        cls.ids = ids
        cls.expected = cls.by_transformers(cls.model, cls.dense)

    def evaluate(self, model):
        if model not in self.evaluated:
            self.evaluated[model] = self.report(
                "eval", "--model", model, "--ppl", EVALUATION, "--seqlen", LENGTH, "--windows",
                WINDOWS, "--kl", self.model)
        return self.evaluated[model]

    @classmethod
    def by_transformers(cls, *models):
        """{model: perplexity} of the same windows; fp32, eager attention (tests/support)."""
        pairs = [word for model in models for word in (model, cls.tokens)]
        result = bt.support("reference_nll.py", *pairs)
        assert result.returncode == 0, result.stderr[-2000:]
        expected = {}
        for model, line in zip(models, result.stdout.splitlines(), strict=True):
            nll, predictions = line.split()
            assert int(predictions) == WINDOWS * (LENGTH - 1), line
            expected[model] = float(np.exp(float(nll) / int(predictions)))
        return expected

    def assert_close(self, value, expected, tolerance=SIGNIFICANT):
        self.assertTrue(np.isfinite(value) and np.isfinite(expected), (value, expected))
        self.assertLess(abs(value / expected - 1), tolerance, (value, expected))

    def test_ids_are_those_of_the_tokenizers_library(self):
        code = ("import sys, json, tokenizers; t = tokenizers.Tokenizer.from_file(sys.argv[1]); "
                "print(json.dumps(t.encode(open(sys.argv[2], encoding='utf-8').read()).ids))")
        command = [bt.python(), "-c", code, self.model / "tokenizer.json", EVALUATION]
        result = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr[-2000:])
        self.assertEqual(json.loads(result.stdout), self.ids)
        self.assertGreater(len(self.ids), LENGTH * WINDOWS)

    def test_original_agrees_with_transformers(self):
        report = self.evaluate(self.model)
        self.assertEqual((report["windows"], report["seqlen"]), (WINDOWS, LENGTH))
        self.assert_close(report["ppl"], self.expected[self.model], 0.5e-4)
        self.assertEqual(report["kl_mean"], 0)  # to itself
        # The same windows as a .npy give the very same number.
        from_npy = self.report("eval", "--model", self.model, "--ppl", self.tokens)
        self.assertEqual(from_npy["ppl"], report["ppl"])

    def test_exported_model_agrees_with_the_packed_one(self):
        packed = self.evaluate(self.results["stbllm"])["ppl"]
        self.assert_close(packed, self.expected[self.dense])
        config = json.loads((self.dense / "config.json").read_text())
        self.assertNotIn("quantization_config", config)

    def test_results_are_worse_than_the_original_and_no_ruins(self):
        original = self.evaluate(self.model)["ppl"]
        self.assertTrue(5 < original < 100, original)
        for name, result in self.results.items():
            report = self.evaluate(result)
            print(f"{name}: perplexity {report['ppl']:.1f}, original {original:.2f}, "
                  f"KL {report['kl_mean']:.3f}, stored {self.reports[name]['stored_bits']:.4f}")
            self.assertGreater(report["ppl"], original)
            self.assertGreater(report["kl_mean"], 0.1)
            # Uniform guessing over the 49,152 tokens would be 49,152.
            self.assertLess(report["ppl"], 10_000)

    def test_inspect_agrees_with_quantize(self):
        for name, result in self.results.items():
            seen, made = self.report("inspect", result), self.reports[name]
            self.assertEqual(len(seen["layers"]), 7 * 30)
            for key in ("stored_bits", "nominal_bits"):
                self.assertAlmostEqual(seen["totals"][key], made[key], places=9)
            errors = [layer["error"] for layer in made["layers"]]
            self.assertEqual(seen["totals"]["largest_error"], max(errors))
            self.assertTrue(all(0 < error < 1 for error in errors), max(errors))

    def test_stored_bits(self):
        for name, result in self.results.items():
            packed = read_packed().open_packed(result)
            names = read_packed().modules(packed)
            self.assertEqual(len(names), 7 * 30)
            modules = [read_packed().Module(packed, module) for module in names]
            weights = sum(module.rows * module.cols for module in modules)
            bits = 8 * sum(module.bytes() for module in modules) / weights
            self.assertAlmostEqual(bits, self.reports[name]["stored_bits"], places=9)
            self.assertLessEqual(bits, STORED_BITS[name])
            # Files as a whole: what is not a plane is headers and the untouched tensors.
            shards = sorted(result.glob("*.safetensors"))
            size = sum(path.stat().st_size for path in shards)
            self.assertEqual(size, self.reports[name]["bytes_after"])
            planes = sum(module.bytes() for module in modules)
            headers = size - planes - untouched_bytes(shards[-1])
            self.assertLess(headers, 0.02 * size)
            self.assertLess(size, 0.4 * self.reports[name]["bytes_before"])

    def test_one_block_decoded_independently(self):
        reader = read_packed()
        packed = reader.open_packed(self.results["stbllm"])
        header, data = bt.read_parts(self.dense / "model-00008-of-00031.safetensors")
        names = [name for name in reader.modules(packed) if name.startswith("model.layers.7.")]
        self.assertEqual(len(names), 7)
        for name in names:
            module = reader.Module(packed, name)
            weight, keep = module.decode()
            reader.check_strict(module, weight, keep)
            self.assertEqual((module.n, module.m), (4, 8))
            begin, end = header[f"{name}.weight"]["data_offsets"]
            self.assertEqual(header[f"{name}.weight"]["shape"], list(weight.shape))
            self.assertEqual(data[begin:end], weight.astype("<f2").tobytes(), name)


def read_packed():
    sys.path.insert(0, str(bt.READ_PACKED.parent))
    import read_packed as module

    return module


def untouched_bytes(last_shard):
    header, _ = bt.read_parts(last_shard)
    return sum(entry["data_offsets"][1] - entry["data_offsets"][0]
               for name, entry in header.items() if name != "__metadata__")


if __name__ == "__main__":
    bt.demo_model()  # or skip
    bt.main()
