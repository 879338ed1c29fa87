"""--device cuda against --device cpu on a tiny model and on the demo model; with BILLM_SLOW_TESTS=1 a
whole model of LLaMA-7B's shape. Skips where there is no NVIDIA GPU.

Sums are taken in another order on a GPU, so codes differ here and there; errors and perplexity must
not: 1 % and 2 %.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

METHODS = {"billm": ("--method", "billm"), "rtn": ("--method", "rtn"),
           "stbllm": ("--method", "stbllm", "--nm", "4:8", "--nm-alloc", "adaptive"),
           "arb": ("--method", "arb"), "pbllm": ("--method", "pbllm"),
           "gptq": ("--method", "gptq", "--bits", "2"),
           "sequential": ("--method", "billm", "--sequential")}


def require_gpu():
    if shutil.which("nvidia-smi") is None:
        bt.skip("no NVIDIA GPU (no nvidia-smi)")
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    if listed.returncode != 0 or "GPU 0" not in listed.stdout:
        bt.skip("no NVIDIA GPU (nvidia-smi lists none)")


class GpuCase(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model", hidden=128, intermediate=320, blocks=3)
        self.tokens = self.calibration(rows=4, length=128)
        probe = self.run_billm("eval", "--model", self.model, "--ppl", self.tokens, "--device",
                               "cuda", "--quiet")
        if "no libtorch_cuda.so" in probe.stderr:
            self.skipTest("this LibTorch has no CUDA side")
        self.assertEqual(probe.returncode, 0, probe.stderr)

    def quantize_on_gpu(self, *arguments, **options):
        """The report; nothing may be left to the CPU for want of the kernels' library."""
        result = self.billm("quantize", *arguments, "--device", "cuda", "--json",
                            self.dir / "report.json", **options)
        self.assertNotIn("the CPU chooses the codes", result.stderr)
        return json.loads((self.dir / "report.json").read_text())

    def assert_near(self, value, expected, tolerance, what):
        self.assertLessEqual(abs(value - expected), tolerance * abs(expected), what)

    def assert_layers_near(self, cpu, cuda):
        for one, other in zip(cpu["layers"], cuda["layers"], strict=True):
            self.assertEqual(one["nm"], other["nm"])
            self.assert_near(other["error"], one["error"], 0.01, one["name"])


class Gpu(GpuCase):
    def evaluate(self, model, device):
        return self.report("eval", "--model", model, "--ppl", self.calibration(seed=5), "--device",
                           device, "--kl", self.model)

    def test_eval_of_the_original(self):
        cpu, cuda = self.evaluate(self.model, "cpu"), self.evaluate(self.model, "cuda")
        self.assert_near(cuda["ppl"], cpu["ppl"], 5e-4, "four significant digits")

    def test_quantize(self):
        for name, arguments in METHODS.items():
            with self.subTest(method=name):
                arguments = ["--model", self.model, *arguments, "--calib", self.tokens, "--out"]
                cpu = self.report("quantize", *arguments, self.dir / f"{name}-cpu", "--device",
                                  "cpu")
                cuda = self.quantize_on_gpu(*arguments, self.dir / f"{name}-cuda")
                self.assert_layers_near(cpu, cuda)
                ppl = [self.evaluate(self.dir / f"{name}-{device}", "cuda")["ppl"]
                       for device in ("cpu", "cuda")]
                self.assert_near(ppl[1], ppl[0], 0.02, "perplexity")
                # The same file on both devices: only the forward pass differs.
                on_cpu = self.evaluate(self.dir / f"{name}-cuda", "cpu")["ppl"]
                self.assert_near(ppl[1], on_cpu, 5e-4, "perplexity of one file")

    def test_same_bytes_again(self):
        for name in ("one", "two"):
            self.billm("quantize", "--model", self.model, "--calib", self.tokens, "--device",
                       "cuda", "--out", self.dir / name, "--quiet")
        self.assertEqual(bt.digests(self.dir / "one"), bt.digests(self.dir / "two"))


class Generation(GpuCase):
    """Models on the GPU: the same tokens with a CUDA graph and without (packed ones differ from the
    CPU's, which rounds inputs to 8 bits); what billm bench says."""

    def packed(self, *method):
        out = self.dir / "packed"
        self.billm("quantize", "--model", self.model, *method, "--calib", self.tokens, "--device",
                   "cuda", "--out", out, "--overwrite", "--quiet")
        return out

    def ids(self, model, device, *options, tokens=400):
        """Longer than one span of the cache."""
        result = self.billm("generate", "--model", model, "--prompt", "abc", "--greedy", "-n", tokens,
                            "--ignore-eos", "--device", device, "--ctx-size", 600, *options, "--json",
                            self.dir / "ids.json")
        self.assertNotIn("no CUDA graphs", result.stderr)
        return json.loads((self.dir / "ids.json").read_text())["ids"]

    def test_the_same_tokens_with_a_graph_and_without(self):
        for method in (("--method", "billm"), ("--method", "stbllm", "--nm", "4:8"),
                       ("--method", "pbllm"), ("--method", "rtn")):
            with self.subTest(method=method):
                model = self.packed(*method)
                graph = self.ids(model, "cuda")
                self.assertEqual(graph, self.ids(model, "cuda", "--no-graph"))

    def test_the_original(self):
        graph = self.ids(self.model, "cuda", tokens=40)
        self.assertEqual(graph, self.ids(self.model, "cuda", "--no-graph", tokens=40))
        self.assertEqual(graph, self.ids(self.model, "cpu", tokens=40))

    def test_bench(self):
        report = self.report("bench", "--device", "cuda", "--model", self.packed("--method", "billm"),
                             "--shape", "512x1024", "--batch", "1", "8", "64", "-r", "2", "--cold",
                             "256", "-p", "64", "-n", "32")
        self.assertEqual(report["device"], "cuda")
        self.assertTrue(report["device_name"])
        bandwidth = report["memory_bytes_per_second"]
        self.assertGreater(bandwidth, 5e10)
        self.assertEqual(len(report["layers"]), 6 * 3)
        for row in report["layers"]:
            self.assertGreater(row["copies"], 10)
            self.assertGreater(row["dense_copies"], 10)
            self.assertGreaterEqual(row["seconds"], row["seconds_fastest"])
            # Times are of the device: neither nothing nor what the host's clock adds.
            self.assertGreater(row["seconds"], 5e-7)
            self.assertLess(row["seconds"], 1e-3)
            self.assertLess(row["bandwidth_share"], 1)
            self.assertAlmostEqual(row["bandwidth_share"], row["bytes_per_second"] / bandwidth)
            self.assertAlmostEqual(row["against_dense"], row["dense_fp16_seconds"] / row["seconds"])
        for kind in ("packed", "dense_fp32"):
            self.assertGreater(report[kind]["prefill"]["tokens_per_second"], 1)
            self.assertLess(report[kind]["decode"]["bandwidth_share"], 1)
        print("decode with a graph:", report["packed"]["decode"]["tokens_per_second"], "tokens/s")


class DemoModel(GpuCase):
    """Rounding in an early block is passed on, so only the first blocks have the same inputs. By
    itself it moves untuned BiLLM's perplexity by 5 % and more (docs/measurements/scale.md, "Noise"),
    so the 2 % are asked of a method that stays near the original."""

    # Perplexity: how near.
    METHODS = {("--method", "billm"): 0.1, ("--method", "gptq", "--bits", "4"): 0.02}

    def test_quantize(self):
        model = bt.demo_model()
        golden = bt.data_directory() / "golden"
        for method, tolerance in self.METHODS.items():
            with self.subTest(method=method):
                arguments = ["--model", model, *method, "--calib", golden / "calib_tokens.npy",
                             "--overwrite", "--out"]
                cpu = self.report("quantize", *arguments, self.dir / "cpu", "--device", "cpu",
                                  timeout=1200)
                cuda = self.quantize_on_gpu(*arguments, self.dir / "cuda", timeout=600)
                print(method, "cuda:", cuda["seconds"], "cpu:", cpu["seconds"])
                early = 4 * len(cpu["layers"]) // cpu["blocks"]
                self.assert_layers_near({"layers": cpu["layers"][:early]},
                                        {"layers": cuda["layers"][:early]})
                errors = [sum(layer["error"] for layer in report["layers"])
                          for report in (cpu, cuda)]
                self.assert_near(errors[1], errors[0], 0.01, "errors of all layers")
                ppl = [self.report("eval", "--model", self.dir / name, "--ppl",
                                   golden / "peer_eval_tokens.npy", "--device", "cuda",
                                   timeout=600)["ppl"] for name in ("cpu", "cuda")]
                print(method, "perplexity: cpu", ppl[0], "cuda", ppl[1])
                self.assert_near(ppl[1], ppl[0], tolerance, "perplexity")


@unittest.skipUnless(os.environ.get("BILLM_SLOW_TESTS") == "1", "BILLM_SLOW_TESTS is not 1")
class SevenBillionShaped(GpuCase):
    """docs/measurements/gpu.md has the goal: 5 minutes."""
    FREE_DISK = 30e9

    def test_quantize(self):
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < self.FREE_DISK:
            self.skipTest(f"needs 30 GB of disk, {free / 1e9:.1f} GB are free")
        model = self.dir / "large"
        bt.make_sharded_llama(model, vocab=32000, hidden=4096, intermediate=11008, blocks=32,
                              heads=32, kv_heads=32)
        tokens = self.calibration(vocab=32000, rows=128, length=2048)
        made = self.quantize_on_gpu("--model", model, "--method", "billm", "--calib", tokens,
                                    "--out", self.dir / "out", timeout=3000)
        print("7B-shaped:", made["seconds"], "peak", made["peak_rss_bytes"] / 1e9, "GB")
        self.assertEqual(made["blocks"], 32)
        self.assertEqual(len(made["layers"]), 7 * 32)


if __name__ == "__main__":
    require_gpu()
    bt.main()
