#!/usr/bin/env python3
"""Large models: what --dry-run says of 7B, 13B and 70B, and blocks of a model of 1 billion weights,
sharded, that are quantized within the memory it named. The slow case, with BILLM_SLOW_TESTS=1, does
so with blocks of a 7B model and the method that needs most."""
import json
import os
import resource
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt  # noqa: E402

THREADS = 2
FREE_DISK = 4_000_000_000

# Parameters as the models' cards and transformers' num_parameters() count them.
LLAMA = {
    "7b": (dict(hidden=4096, intermediate=11008, blocks=32, heads=32, kv_heads=32), 6_738_415_616),
    "13b": (dict(hidden=5120, intermediate=13824, blocks=40, heads=40, kv_heads=40),
            13_015_864_320),
    "70b": (dict(hidden=8192, intermediate=28672, blocks=80, heads=64, kv_heads=8),
            68_976_648_192),
}
GB = 1e9


def headers(result):
    """The bytes of the files' headers, which name every plane."""
    total = 0
    for path in result.glob("*.safetensors"):
        with open(path, "rb") as file:
            total += 8 + int.from_bytes(file.read(8), "little")
    return total


class DryRun(bt.TestCase):
    def dry_run(self, model, *more):
        return self.report("quantize", "--model", model, "--dry-run", "--threads", THREADS, *more)

    def config_only(self, name, **sizes):
        directory = self.dir / name
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(bt.tiny_config(vocab=32000, **sizes)))
        return directory

    def test_sizes_of_large_models(self):
        last = None
        for name, (sizes, parameters) in LLAMA.items():
            with self.subTest(model=name):
                estimate = self.dry_run(self.config_only(name, **sizes), "--method", "billm")
                self.assertEqual(estimate["weights"] + estimate["other_weights"], parameters)
                self.assertEqual(estimate["blocks"], sizes["blocks"])
                self.assertAlmostEqual(estimate["stored_bits"], 2.27, delta=0.03)
                packed = estimate["weights"] * estimate["stored_bits"] / 8
                self.assertAlmostEqual(estimate["output_bytes"],
                                       packed + 2 * estimate["other_weights"], delta=1e6)
                hidden = 128 * 2048 * sizes["hidden"] * 4
                self.assertEqual(estimate["disk_bytes"], estimate["output_bytes"] + 2 * hidden)
                self.assertEqual(estimate["hidden_bytes"], hidden)
                # The hidden states, if this machine has room for them. Besides, two blocks in fp32
                # and what grows with the width as the hidden states do.
                if estimate["hidden_place"] == "memory":
                    estimate["cpu_bytes"] -= hidden
                block = 4 * estimate["weights"] / estimate["blocks"]
                self.assertLess(estimate["cpu_bytes"], 2 * block + hidden + 2 * GB)
                self.assertGreater(estimate["gpu_bytes"], block)
                seconds = estimate["seconds"]
                parts = seconds["forward"] + seconds["hessian"] + seconds["quantize"]
                self.assertAlmostEqual(seconds["total"], parts, delta=1e-6 * parts)
                print(f"{name}: {estimate['stored_bits']:.3f} bits, output "
                      f"{estimate['output_bytes'] / GB:.2f} GB, disk "
                      f"{estimate['disk_bytes'] / GB:.1f} GB, memory "
                      f"{estimate['cpu_bytes'] / GB:.1f} GB, GPU {estimate['gpu_bytes'] / GB:.1f} "
                      f"GB, {seconds['total'] / 3600:.0f} h with {THREADS} threads")
                if last:
                    for key in ("output_bytes", "disk_bytes", "cpu_bytes", "gpu_bytes"):
                        self.assertGreater(estimate[key], last[key], key)
                    self.assertGreater(seconds["total"], last["seconds"]["total"])
                last = estimate
        self.assertFalse(self.home.exists(), "a dry run writes nothing")

    def test_parameters_of_opt(self):
        """facebook/opt-350m and opt-125m, as transformers counts them."""
        for name, (hidden, inner, heads, blocks, width, before, parameters) in {
                "opt-125m": (768, 3072, 12, 12, 768, True, 125_239_296),
                "opt-350m": (1024, 4096, 16, 24, 512, False, 331_196_416)}.items():
            directory = self.dir / name
            directory.mkdir()
            config = {"architectures": ["OPTForCausalLM"], "model_type": "opt", "vocab_size": 50272,
                      "hidden_size": hidden, "ffn_dim": inner, "num_attention_heads": heads,
                      "num_hidden_layers": blocks, "word_embed_proj_dim": width,
                      "do_layer_norm_before": before, "max_position_embeddings": 2048,
                      "activation_function": "relu", "torch_dtype": "float16"}
            (directory / "config.json").write_text(json.dumps(config))
            estimate = self.dry_run(directory, "--method", "rtn")
            self.assertEqual(estimate["weights"] + estimate["other_weights"], parameters, name)

    def test_stored_bits_and_size_are_those_of_the_result(self):
        large = bt.make_tiny_llama(self.dir / "model", hidden=256, intermediate=768, blocks=2)
        small = bt.make_tiny_llama(self.dir / "small", hidden=64, intermediate=96, blocks=2)
        tokens = self.calibration()
        for method in (["billm"], ["arb"], ["stbllm", "--nm", "5:8"], ["gptq", "--bits", "3"],
                       ["pbllm"], ["rtn"], ["arb", "--rotate", "both"],
                       ["trellis", "--bits", "1.25"],
                       ["dbf", "--bits", "0.7"],
                       ["arb", "--classes", 1, "--salient-classes", 2, "--block-size", 4096]):
            with self.subTest(method=method):
                arguments = ["--method", *method, "--calib", tokens]
                planned = method[0] == "dbf"  # exact at any size
                model = small if planned else large
                estimate = self.dry_run(model, *arguments)
                made = self.report("quantize", "--model", model, "--overwrite", "--out",
                                   self.dir / "out", *arguments)
                self.assertAlmostEqual(estimate["stored_bits"], made["stored_bits"],
                                       delta=1e-9 if planned else 0.01 * made["stored_bits"])
                tensors = made["bytes_after"] - headers(self.dir / "out")
                self.assertAlmostEqual(estimate["output_bytes"], tensors, delta=0.02 * tensors)

    def test_memory_of_each_method(self):
        """One block whose down projection is wide: H, factor and copies decide."""
        model = bt.make_tiny_llama(self.dir / "model", hidden=128, intermediate=4096, blocks=1)
        tokens = self.calibration()
        for method in (["billm"], ["gptq"], ["gptq", "--no-act-order"],
                       ["arb", "--classes", 1, "--salient-classes", 2, "--block-size", 4096]):
            with self.subTest(method=method):
                arguments = ["--method", *method, "--calib", tokens]
                limit = self.dry_run(model, *arguments)["cpu_bytes"]
                made = self.report("quantize", "--model", model, "--overwrite", "--out",
                                   self.dir / "out", "--threads", THREADS, *arguments)
                print(f"{method}: peak {made['peak_rss_bytes'] / 1e6:.0f} MB, estimate "
                      f"{limit / 1e6:.0f} MB")
                # What the C library keeps for its threads differs by some MB from run to run.
                self.assertLess(made["peak_rss_bytes"], 1.07 * limit)
                self.assertGreater(made["peak_rss_bytes"], 0.6 * limit)

    def test_refuses_what_a_run_refuses(self):
        model = self.config_only("quantized", **LLAMA["7b"][0])
        config = json.loads((model / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "awq"}
        (model / "config.json").write_text(json.dumps(config))
        self.fails(bt.BAD_INPUT, "quantize", "--dry-run", "--model", model,
                   needles=["quantization_config: expected none"])
        huge = self.config_only("huge", hidden=1 << 24, intermediate=1 << 24, blocks=65536)
        self.fails(bt.BAD_INPUT, "quantize", "--dry-run", "--model", huge, "--seqlen", 64,
                   needles=["expected at most 1e15 weights"])
        self.fails(bt.USAGE, "quantize", "--dry-run", "--model", model, "--tune-steps", 5,
                   needles=["--tune-steps"])

    def test_needs_config_json_only_and_says_what_is_wrong(self):
        self.fails(bt.BAD_INPUT, "quantize", "--dry-run", "--model", self.dir / "none",
                   needles=["none"])
        empty = self.dir / "empty"
        empty.mkdir()
        self.fails(bt.BAD_INPUT, "quantize", "--dry-run", "--model", empty,
                   needles=["config.json"])
        text = self.billm("quantize", "--dry-run", "--model",
                          self.config_only("7b", **LLAMA["7b"][0]), "--threads", THREADS).stdout
        for needle in ("6.476 billion weights to quantize", "stored bits", "peak memory", "time"):
            self.assertIn(needle, text)


class Blocks(bt.TestCase):
    """Two blocks of a large model, of TinyLlama's shape and (slow) of a 7B model's."""
    BLOCKS = 2
    TINY_LLAMA = dict(hidden=2048, intermediate=5632, heads=32, kv_heads=4)

    def setUp(self):
        super().setUp()
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < FREE_DISK:
            self.skipTest(f"needs 4 GB of disk, {free / GB:.1f} GB are free")

    def run_within_the_estimate(self, sizes, method, rows, length):
        bt.make_sharded_llama(self.dir / "model", vocab=32000,
                              **(sizes | {"blocks": self.BLOCKS}))
        tokens = self.calibration(vocab=32000, rows=rows, length=length)
        arguments = ["quantize", "--model", self.dir / "model", "--method", method, "--calib",
                     tokens, "--threads", THREADS]
        estimate = self.report(*arguments, "--dry-run")
        limit = estimate["cpu_bytes"]
        made = self.report(*arguments, "--out", self.dir / "out", timeout=3000,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA,
                                                                 (limit, limit)))
        seconds = made["seconds"]
        print(f"{method}, {self.BLOCKS} blocks: peak {made['peak_rss_bytes'] / GB:.2f} GB, estimate "
              f"{limit / GB:.2f} GB; {seconds['total']:.0f} s, estimate "
              f"{estimate['seconds']['total']:.0f} s: " +
              ", ".join(f"{key} {seconds[key]:.0f} / {estimate['seconds'][key]:.0f}"
                        for key in ("forward", "hessian", "quantize")))
        self.assertEqual(made["blocks"], self.BLOCKS)
        self.assertLess(made["peak_rss_bytes"], 1.1 * limit)
        self.assertGreater(made["peak_rss_bytes"], 0.6 * limit)
        self.assertAlmostEqual(made["stored_bits"], estimate["stored_bits"],
                               delta=0.02 * made["stored_bits"])

    def test_within_the_memory_that_the_dry_run_names(self):
        self.run_within_the_estimate(self.TINY_LLAMA, "rtn", rows=2, length=64)

    @unittest.skipUnless(os.environ.get("BILLM_SLOW_TESTS") == "1", "BILLM_SLOW_TESTS is not 1")
    def test_with_the_largest_needs(self):
        self.run_within_the_estimate(LLAMA["7b"][0], "billm", rows=8, length=512)


if __name__ == "__main__":
    bt.main()
