"""Bad checkpoints: `billm quantize` says one clear line, exits with 3 and leaves no result.

Damage is done to a tiny model that is fine otherwise. tests/unit/checkpoint covers the parsers
themselves; here the whole program must hold.
"""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


class BadModel(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.out = self.dir / "results" / "out"
        self.model = self.dir / "model"
        self.tokens = self.calibration()

    def refused(self, *needles, model=None, code=bt.BAD_INPUT):
        """quantize fails with one line and leaves nothing that looks like a result."""
        self.fails(code, "quantize", "--model", model or self.model, "--method", "rtn",
                   "--calib", self.tokens, "--out", self.out, needles=needles)
        self.assertFalse(self.out.exists())
        self.assertFalse((self.home / "newest").is_symlink())
        self.assertEqual(list(self.dir.glob("results/**/manifest.json")), [])

    def make(self, change=None, **sizes):
        return bt.make_tiny_llama(self.model, change=change, **sizes)

    def edit_config(self, **changes):
        path = self.model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def weights(self):
        return self.model / "model.safetensors"

    # --- the directory ----------------------------------------------------------------------------

    def test_no_such_model(self):
        self.refused("/no/such/model", model="/no/such/model")
        self.refused("no-such-model", "unknown model", model="no-such-model")
        self.refused("did you mean llama2-7b", model="llama2-7")

    def test_alias_that_is_not_on_this_machine(self):
        self.refused("meta-llama/Llama-2-7b-hf", "HF_HUB_OFFLINE", model="llama2-7b")

    def test_a_file_in_place_of_a_directory(self):
        self.refused("expected a model directory, got a file", model=self.tokens)

    def test_directory_without_config(self):
        self.make()
        (self.model / "config.json").unlink()
        self.refused(str(self.model), "config.json")

    def test_config_that_is_not_json(self):
        self.make()
        for text in ("", "{", "[]", '{"architectures": 3}', "\0" * 100, "[" * 100_000):
            with self.subTest(text=text[:20]):
                (self.model / "config.json").write_text(text)
                self.refused("config.json")

    def test_config_with_impossible_numbers(self):
        self.make()
        for change in ({"hidden_size": 0}, {"hidden_size": -64}, {"num_hidden_layers": 1 << 60},
                       {"vocab_size": 1 << 62}, {"num_attention_heads": 7}, {"rms_norm_eps": "x"}):
            with self.subTest(change=change):
                original = (self.model / "config.json").read_text()
                self.edit_config(**change)
                self.refused("config.json", next(iter(change)))
                (self.model / "config.json").write_text(original)

    def test_unsupported_architecture(self):
        self.make()
        self.edit_config(architectures=["MambaForCausalLM"])
        self.refused("config.json", "MambaForCausalLM", "LlamaForCausalLM")

    def test_no_weights(self):
        self.make()
        self.weights().unlink()
        self.refused("model.safetensors")

    def test_index_with_a_missing_shard(self):
        self.make()
        self.weights().rename(self.model / "model-00001-of-00002.safetensors")
        header, _ = bt.read_parts(self.model / "model-00001-of-00002.safetensors")
        names = {name: "model-00001-of-00002.safetensors" for name in header if name[0] != "_"}
        names[Q_PROJ] = "model-00002-of-00002.safetensors"
        index = self.model / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": names}))
        self.refused("model-00002-of-00002.safetensors")
        names[Q_PROJ] = "../../outside.safetensors"
        index.write_text(json.dumps({"weight_map": names}))
        self.refused("outside.safetensors")

    # --- safetensors ------------------------------------------------------------------------------

    def test_truncated(self):
        self.make()
        whole = self.weights().read_bytes()
        (header,) = struct.unpack_from("<Q", whole)
        for length in (0, 1, 7, 8, 9, 8 + header // 2, 8 + header, len(whole) // 2, len(whole) - 1):
            with self.subTest(length=length):
                self.weights().write_bytes(whole[:length])
                self.refused("model.safetensors")

    def test_one_byte_too_many(self):
        self.make()
        self.weights().write_bytes(self.weights().read_bytes() + b"\0")
        self.refused("model.safetensors")

    def test_header_length(self):
        self.make()
        whole = self.weights().read_bytes()
        for length in (0, 1, 100_000_001, 1 << 62, 1 << 63, (1 << 64) - 1, (1 << 64) - 8):
            with self.subTest(length=length):
                self.weights().write_bytes(struct.pack("<Q", length) + whole[8:])
                self.refused("model.safetensors")

    def test_flipped_bits_in_the_header(self):
        # A flip inside a tensor's name, dtype, shape or offsets; each makes the file inconsistent.
        self.make()
        whole = bytearray(self.weights().read_bytes())
        (header,) = struct.unpack_from("<Q", whole)
        text = bytes(whole[8 : 8 + header]).decode()
        name, entry = text.index(f'"{Q_PROJ}"'), text.index('"dtype"', text.index(f'"{Q_PROJ}"'))
        places = {"name": name + 9, "quote": name, "dtype": text.index("F16", entry),
                  "shape": text.index("[", entry) + 1, "colon": text.index(":", entry),
                  "offset": text.index("data_offsets", entry) + 16, "brace": 0}
        for what, place in places.items():
            with self.subTest(what=what):
                damaged = bytearray(whole)
                damaged[8 + place] ^= 1 << 1
                self.weights().write_bytes(damaged)
                self.refused(str(self.model) if what == "name" else "model.safetensors")

    def test_overlapping_tensors(self):
        self.make()
        header, data = bt.read_parts(self.weights())
        other = header["model.layers.0.self_attn.q_proj.weight"]["data_offsets"]
        header[Q_PROJ]["data_offsets"] = other
        bt.write_parts(self.weights(), header, data)
        self.refused("model.safetensors")

    def test_offsets_out_of_the_file(self):
        self.make()
        header, data = bt.read_parts(self.weights())
        size = len(data)
        for begin, end in ((size, size + 8192), (1 << 62, (1 << 62) + 8192), (8192, 0), (-8192, 0),
                           (0, (1 << 64) - 1)):
            with self.subTest(begin=begin, end=end):
                header[Q_PROJ]["data_offsets"] = [begin, end]
                bt.write_parts(self.weights(), header, data)
                self.refused("model.safetensors")

    def test_shape_whose_product_overflows(self):
        self.make()
        header, data = bt.read_parts(self.weights())
        header[Q_PROJ]["shape"] = [1 << 32, 1 << 32, 4096]
        bt.write_parts(self.weights(), header, data)
        self.refused("model.safetensors", Q_PROJ)

    # --- tensors ----------------------------------------------------------------------------------

    def test_wrong_shape(self):
        def narrow(config, tensors):
            tensors[Q_PROJ] = tensors[Q_PROJ][:, :-1]

        self.make(narrow)
        self.refused("model.safetensors", Q_PROJ, "[64, 64]", "[64, 63]")

    def test_wrong_rank_and_dtype(self):
        def reshape(config, tensors):
            tensors[Q_PROJ] = tensors[Q_PROJ].reshape(64, 8, 8)

        self.make(reshape)
        self.refused(Q_PROJ, "[64, 64]", "[64, 8, 8]")
        shutil.rmtree(self.model)

        def integers(config, tensors):
            tensors[Q_PROJ] = np.zeros((64, 64), dtype=np.int32)

        self.make(integers)
        self.refused(Q_PROJ, "I32")

    def test_missing_tensor(self):
        self.make(lambda config, tensors: tensors.pop(Q_PROJ))
        self.refused(Q_PROJ)

    def test_values_that_are_not_finite(self):
        norm = "model.layers.1.input_layernorm.weight"
        places = ((Q_PROJ, (3, 5), np.nan, "NaN at [3, 5]"),
                  (Q_PROJ, (63, 63), -np.inf, "infinity at [63, 63]"),
                  ("model.layers.0.mlp.down_proj.weight", (0, 0), np.inf, "infinity at [0, 0]"),
                  (norm, (7,), np.nan, "NaN at [0, 7]"))
        for name, index, value, message in places:
            with self.subTest(name=name, value=value):
                def spoil(config, tensors, name=name, index=index, value=value):
                    tensors[name][index] = value

                shutil.rmtree(self.model, ignore_errors=True)
                shutil.rmtree(self.out.parent, ignore_errors=True)
                self.make(spoil)
                self.refused(name, message)

    def test_nan_in_an_embedding_that_is_used(self):
        def spoil(config, tensors):
            tensors["model.embed_tokens.weight"][:] = np.nan

        self.make(spoil)
        self.refused("model.embed_tokens.weight", "NaN")

    def test_eval_refuses_the_same(self):
        self.make()
        whole = self.weights().read_bytes()
        self.weights().write_bytes(whole[:-1])
        self.fails(bt.BAD_INPUT, "eval", "--model", self.model, "--ppl", self.tokens,
                   needles=["model.safetensors"])
        self.weights().write_bytes(struct.pack("<Q", 1 << 63) + whole[8:])
        self.fails(bt.BAD_INPUT, "eval", "--model", self.model, "--ppl", self.tokens,
                   needles=["model.safetensors"])


if __name__ == "__main__":
    bt.main()
