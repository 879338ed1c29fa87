"""--device cuda against --device cpu on a tiny model. Skips where there is no NVIDIA GPU.

Sums are taken in another order on a GPU, so codes differ here and there; errors and perplexity must
not: 1 % and 2 %.
"""

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

METHODS = {"billm": ("--method", "billm"), "rtn": ("--method", "rtn"),
           "stbllm": ("--method", "stbllm", "--nm", "4:8", "--nm-alloc", "adaptive")}


def require_gpu():
    if shutil.which("nvidia-smi") is None:
        bt.skip("no NVIDIA GPU (no nvidia-smi)")
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    if listed.returncode != 0 or "GPU 0" not in listed.stdout:
        bt.skip("no NVIDIA GPU (nvidia-smi lists none)")


class Gpu(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model", hidden=128, intermediate=320, blocks=3)
        self.tokens = self.calibration(rows=4, length=128)
        probe = self.run_billm("eval", "--model", self.model, "--ppl", self.tokens, "--device",
                               "cuda", "--quiet")
        if "no libtorch_cuda.so" in probe.stderr:
            self.skipTest("this LibTorch has no CUDA side")
        self.assertEqual(probe.returncode, 0, probe.stderr)

    def assert_near(self, value, expected, tolerance, what):
        self.assertLessEqual(abs(value - expected), tolerance * abs(expected), what)

    def evaluate(self, model, device):
        return self.report("eval", "--model", model, "--ppl", self.calibration(seed=5), "--device",
                           device, "--kl", self.model)

    def test_eval_of_the_original(self):
        cpu, cuda = self.evaluate(self.model, "cpu"), self.evaluate(self.model, "cuda")
        self.assert_near(cuda["ppl"], cpu["ppl"], 5e-4, "four significant digits")

    def test_quantize(self):
        for name, arguments in METHODS.items():
            with self.subTest(method=name):
                reports = {}
                for device in ("cpu", "cuda"):
                    reports[device] = self.report("quantize", "--model", self.model, *arguments,
                                                  "--calib", self.tokens, "--device", device,
                                                  "--out", self.dir / f"{name}-{device}")
                for one, other in zip(reports["cpu"]["layers"], reports["cuda"]["layers"],
                                      strict=True):
                    self.assertEqual(one["nm"], other["nm"])
                    self.assert_near(other["error"], one["error"], 0.01, one["name"])
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


if __name__ == "__main__":
    require_gpu()
    bt.main()
