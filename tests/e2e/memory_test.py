"""A model is never held whole: 1 GB of fp16 linears is quantized and evaluated within 450 MB.

The checkpoint is synthetic: random bits with one exponent, the same for every block. Mapped files
are not private data, so RLIMIT_DATA does not count them; the peaks that billm reports do.
"""

import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

HIDDEN, INNER, BLOCKS, VOCAB = 1024, 2816, 45, 1000
LENGTH, THREADS = 64, 2
LIMIT = 450_000_000
FREE_DISK = 3_000_000_000


def block_weights(config):
    return sum(rows * cols for rows, cols in bt.linear_shapes(config).values())


def limit_data():
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))


class Memory(bt.TestCase):
    def timed(self, *arguments):
        started = time.monotonic()
        report = self.report(*arguments, "--threads", THREADS, preexec_fn=limit_data)
        print(f"{arguments[0]}: {time.monotonic() - started:.1f} s, "
              f"peak {report['peak_rss_bytes'] / 1e6:.0f} MB")
        return report

    def idle_bytes(self):
        """Peak of a LibTorch process that evaluates next to nothing."""
        tiny = bt.make_tiny_llama(self.dir / "tiny", blocks=1)
        return self.report("eval", "--model", tiny, "--ppl", self.calibration(), "--threads",
                           THREADS)["peak_rss_bytes"]

    def test_one_gigabyte(self):
        started = time.monotonic()
        config = bt.make_sharded_llama(self.dir / "model", hidden=HIDDEN, intermediate=INNER,
                                       blocks=BLOCKS, vocab=VOCAB, heads=16, kv_heads=16,
                                       tied=True)
        linears = 2 * BLOCKS * block_weights(config)
        self.assertGreater(linears, 1_000_000_000)
        self.assertGreater(linears, 2.5 * LIMIT)
        print(f"checkpoint: {time.monotonic() - started:.1f} s")
        tokens = self.calibration(vocab=VOCAB, rows=2, length=LENGTH)
        out = self.dir / "out"
        made = self.timed("quantize", "--model", self.dir / "model", "--method", "rtn", "--calib",
                          tokens, "--nsamples", 1, "--out", out)
        self.assertEqual(made["blocks"], BLOCKS)
        self.assertGreater(made["bytes_before"], linears)
        # Mapped pages count here; those of finished blocks must have been given back.
        self.assertLess(made["peak_rss_bytes"], LIMIT)

        shutil.rmtree(self.dir / "model")
        report = self.timed("eval", "--model", out, "--ppl", tokens)
        self.assertTrue(np.isfinite(report["ppl"]))
        packed = sum(path.stat().st_size for path in out.iterdir())
        self.assertLess(packed, 0.1 * linears)
        # include/billm/eval/perplexity.h: one block in fp32, the windows' hidden states, per thread
        # one forward pass (block.h) and, at the head, two chunks of logits and a piece of the head.
        activations = 4 * LENGTH * HIDDEN * report["windows"]
        activations += THREADS * 4 * LENGTH * (3 * HIDDEN + 2 * INNER)
        activations += THREADS * 4 * VOCAB * (2 * LENGTH + HIDDEN)
        bound = self.idle_bytes() + packed + 4 * block_weights(config) + activations
        print(f"bound of eval: {bound / 1e6:.0f} MB, of which packed {packed / 1e6:.0f} MB")
        self.assertLessEqual(report["peak_rss_bytes"], bound)


if __name__ == "__main__":
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < FREE_DISK:
        bt.skip(f"{tempfile.gettempdir()}: needs 3 GB of disk, {free / 1e9:.1f} GB are free")
    bt.main()
