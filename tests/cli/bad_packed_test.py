"""Damaged packed models: a flipped bit in any file, another version, files added or missing.

Every command that reads the model refuses it with exit code 3 and says which file. `honest` damage
fixes the checksums afterwards, as a faulty writer would: then the checks behind them must hold.
"""

import hashlib
import json
import shutil
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt


class BadPacked(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model")
        self.tokens = self.calibration()
        self.good = self.dir / "good"
        self.packed = self.dir / "packed"
        self.billm("quantize", "--model", self.model, "--method", "stbllm", "--calib", self.tokens,
                   "--out", self.good, "--quiet")
        self.restore()

    def restore(self):
        shutil.rmtree(self.packed, ignore_errors=True)
        shutil.copytree(self.good, self.packed)

    def refused(self, *needles, commands=("eval",)):
        arguments = {"eval": ("eval", "--model", self.packed, "--ppl", self.tokens),
                     "inspect": ("inspect", self.packed),
                     "export": ("export", "--dense", "--model", self.packed, "--out",
                                self.dir / "dense")}
        for command in commands:
            self.fails(bt.BAD_INPUT, *arguments[command], needles=needles)
        self.assertEqual(list(self.dir.glob("dense*")), [])

    def flip(self, name, place, bit=0):
        """Flips a bit; `place` is an offset, or a fraction of the size."""
        path = self.packed / name
        data = bytearray(path.read_bytes())
        place = int(place * (len(data) - 1)) if isinstance(place, float) else place
        data[place] ^= 1 << bit
        path.write_bytes(data)

    def sign_again(self, changes=None):
        """Brings manifest.json, changed at its top level, and manifest.sha256 up to date."""
        path = self.packed / "manifest.json"
        manifest = json.loads(path.read_text()) | (changes or {})
        for name in manifest["files"]:
            data = (self.packed / name).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            manifest["files"][name] = {"bytes": len(data), "sha256": digest}
        text = json.dumps(manifest, indent=1) + "\n"
        path.write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        (self.packed / "manifest.sha256").write_text(f"{digest}  manifest.json\n")

    def shard(self):
        return self.packed / "model-00001-of-00003.safetensors"

    def edit_shard(self, change):
        header, data = bt.read_parts(self.shard())
        data = bytearray(data)
        change(header, data)
        bt.write_parts(self.shard(), header, bytes(data))
        self.sign_again()

    def rename_in_index(self, name, new):
        path = self.packed / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        index["weight_map"][new] = index["weight_map"].pop(name)
        path.write_text(json.dumps(index))
        self.sign_again()

    def test_the_good_one(self):
        self.sign_again()
        self.billm("eval", "--model", self.packed, "--ppl", self.tokens)

    def test_a_flipped_bit_in_every_file(self):
        names = sorted(p.name for p in self.good.iterdir())
        self.assertEqual(len(names), 8)  # 3 shards, index, config, tokenizer, manifest, its digest
        for name in names:
            for place, bit in ((0.37, 5), (1.0, 7)):
                with self.subTest(name=name, place=place):
                    self.restore()
                    self.flip(name, place, bit)
                    needle = name if name.endswith((".safetensors", ".sha256")) else "packed"
                    self.refused(needle)

    def test_a_flipped_bit_in_every_plane(self):
        header, _ = bt.read_parts(self.shard())
        (size,) = struct.unpack_from("<Q", self.shard().read_bytes())
        for name, entry in header.items():
            if not name.startswith("model.layers.0.mlp.down_proj."):
                continue
            with self.subTest(name=name):
                self.restore()
                self.flip(self.shard().name, 8 + size + entry["data_offsets"][0], 3)
                self.refused(self.shard().name, "checksum", commands=("eval", "inspect", "export"))

    def test_another_version(self):
        for value in (4, 0, "1", None):
            with self.subTest(where="config.json", value=value):
                self.restore()
                path = self.packed / "config.json"
                config = json.loads(path.read_text())
                config["quantization_config"]["format_version"] = value
                path.write_text(json.dumps(config))
                self.sign_again()
                self.refused("config.json", "format_version", "expected 1", "another version")
        self.restore()
        path = self.packed / "manifest.json"
        path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 4'))
        self.sign_again()
        self.refused("manifest.json", "format_version", "expected 1 to 3, got 4")
        self.restore()
        self.edit_shard(lambda header, data: header["__metadata__"].update(billm_format="4"))
        self.refused("billm_format: expected 1 to 3, got 4", commands=("eval", "inspect", "export"))

    def test_missing_and_additional_files(self):
        for path in sorted(self.good.iterdir()):
            with self.subTest(missing=path.name):
                self.restore()
                (self.packed / path.name).unlink()
                self.refused(path.name if path.suffix == ".safetensors" else "packed")
        self.restore()
        shutil.copy(self.shard(), self.packed / "extra.safetensors")
        self.refused("extra.safetensors", "not listed")

    def test_truncated_shard(self):
        data = self.shard().read_bytes()
        self.shard().write_bytes(data[:-16])
        self.refused(self.shard().name)
        self.sign_again()
        self.refused(self.shard().name)

    # --- damage that the checksums do not show ----------------------------------------------------

    def test_honest_descriptions(self):
        module = "model.layers.0.self_attn.q_proj"
        changes = ({"layout": "cubes"}, {"rows": 63}, {"rows": -64}, {"cols": 1 << 40},
                   {"block_size": 0}, {"n": 9}, {"m": 0}, {"classes": 4}, {"salient_classes": 9},
                   {"scale_format": "f8"}, {"offsets": "row"}, {"rows": "64"}, {"rows": None})
        for change in changes:
            with self.subTest(change=change):
                self.restore()

                def edit(header, data, change=change):
                    text = json.loads(header["__metadata__"][module])
                    header["__metadata__"][module] = json.dumps(text | change)

                self.edit_shard(edit)
                self.refused(module)
        self.restore()
        self.edit_shard(lambda header, data: header["__metadata__"].update({module: "{"}))
        self.refused(module)

    def test_honest_planes(self):
        module = "model.layers.0.self_attn.q_proj."
        header, _ = bt.read_parts(self.shard())
        planes = [name for name in header if name.startswith(module)]
        self.assertGreaterEqual(len(planes), 5)
        for name in planes:
            with self.subTest(missing=name):
                self.restore()

                def rename(header, data, name=name):
                    header[name + "x"] = header.pop(name)

                self.edit_shard(rename)
                self.rename_in_index(name, name + "x")
                self.refused(module[:-1])

    def test_honest_codes(self):
        # What no writer writes: class bytes above 242, mask words that are no ranks, NaN as base.
        module = "model.layers.0.self_attn.q_proj."
        for plane, value in (("classes", 0xFF), ("mask", 0xFF), ("base", 0xFF)):
            with self.subTest(plane=plane):
                self.restore()

                def fill(header, data, plane=plane, value=value):
                    begin, end = header[module + plane]["data_offsets"]
                    data[begin:end] = bytes([value]) * (end - begin)

                self.edit_shard(fill)
                self.refused(module[:-1], commands=("eval", "inspect", "export"))

    def test_honest_manifests(self):
        for changes in ({"settings": 3}, {"settings": "x"}, {"settings": {}}, {"layers": 3},
                        {"settings": {"method": None}}, {"layers": [3]}, {"layers": [{}]},
                        {"layers": [{"name": "x"}]}):
            with self.subTest(changes=changes):
                self.restore()
                self.sign_again(changes)
                self.refused("manifest.json", commands=("inspect",))


if __name__ == "__main__":
    bt.main()
