"""pytorch_model.bin from end to end: the same model saved by torch.save gives the same packed bytes
and the same perplexity as its safetensors twin, and a file that would run code is refused.

The models are random ones of transformers, saved by it and by torch.save(model.state_dict()).
"""

import json
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

try:
    import torch
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    bt.skip(f"BILLM_PYTHON has no torch or transformers: {error}")

transformers.utils.logging.disable_progress_bar()
MANIFEST = ("manifest.json", "manifest.sha256")


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch /tmp/billm-test-must-not-exist",)


class TorchCheckpoint(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.tokens = self.calibration()

    def save(self, dtype, tied):
        """The model in both forms, in directories of the same name; its state dict."""
        torch.manual_seed(5)
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=300, hidden_size=64, intermediate_size=112, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
            tie_word_embeddings=tied)).to(dtype)
        self.safetensors, self.bin = self.dir / "a" / "model", self.dir / "b" / "model"
        model.save_pretrained(self.safetensors)
        self.bin.mkdir(parents=True)
        for name in ("config.json", "generation_config.json"):
            shutil.copy(self.safetensors / name, self.bin)
        self.assertTrue((self.safetensors / "model.safetensors").is_file())
        return model.state_dict()

    def quantize(self, model, name):
        out = self.dir / name
        report = self.report("quantize", "--model", model, "--method", "billm", "--calib",
                             self.tokens, "--block-size", "32", "--out", out)
        return out, report

    def expect_equal_results(self, but=()):
        expected, expected_report = self.quantize(self.safetensors, "from-safetensors")
        got, report = self.quantize(self.bin, "from-bin")
        digests, other = bt.digests(expected), bt.digests(got)
        self.assertEqual(sorted(other), sorted(digests))
        self.assertEqual([name for name in digests if digests[name] != other[name]], list(but))
        self.assertEqual([name for name in other if name.endswith(".bin")], [])
        self.assertEqual(report["stored_bits"], expected_report["stored_bits"])
        self.assertEqual(self.nll(self.bin), self.nll(self.safetensors))
        self.assertEqual(self.nll(got), self.nll(expected))
        self.billm("inspect", got)
        return got

    def nll(self, model):
        return self.report("eval", "--model", model, "--ppl", self.tokens)["window_nll"]

    def test_one_file(self):
        torch.save(self.save(torch.bfloat16, tied=False), self.bin / "pytorch_model.bin")
        self.expect_equal_results()

    def test_shards(self):
        state = self.save(torch.float16, tied=False)
        names = sorted(state)
        half = len(names) // 2
        files = {"pytorch_model-00001-of-00002.bin": names[:half],
                 "pytorch_model-00002-of-00002.bin": names[half:]}
        for file, part in files.items():
            torch.save({name: state[name] for name in part}, self.bin / file)
        index = {"metadata": {"total_size": 1},
                 "weight_map": {name: file for file, part in files.items() for name in part}}
        (self.bin / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        self.expect_equal_results()

    def test_tied_head(self):
        # The .bin file lists lm_head.weight, a second view of the embedding; safetensors does not.
        # So the digest of the source in the manifest differs, and nothing else.
        state = self.save(torch.float32, tied=True)
        self.assertIn("lm_head.weight", state)
        torch.save(state, self.bin / "pytorch_model.bin")
        got = self.expect_equal_results(but=MANIFEST)
        index = json.loads((got / "model.safetensors.index.json").read_text())
        self.assertNotIn("lm_head.weight", index["weight_map"])

    def test_code_is_refused(self):
        state = self.save(torch.float16, tied=False)
        torch.save({**state, "extra": RunsCode()}, self.bin / "pytorch_model.bin")
        for command in (("quantize", "--model", self.bin, "--method", "rtn", "--calib", self.tokens,
                         "--out", self.dir / "out"),
                        ("eval", "--model", self.bin, "--ppl", self.tokens)):
            self.fails(bt.BAD_INPUT, *command, needles=(
                "pytorch_model.bin: pytorch_model/data.pkl: pickle opcode GLOBAL of posix.system",
                "this file would run code"))
        self.assertFalse((self.dir / "out").exists())
        self.assertFalse(os.path.exists("/tmp/billm-test-must-not-exist"))

    def test_safetensors_is_preferred(self):
        self.save(torch.float16, tied=False)
        expected = self.nll(self.safetensors)
        (self.safetensors / "pytorch_model.bin").write_bytes(b"not read")
        self.assertEqual(self.nll(self.safetensors), expected)


if __name__ == "__main__":
    bt.main()
