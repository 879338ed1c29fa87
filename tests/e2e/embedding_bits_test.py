"""Embeddings and output head stored as integers (--embedding-bits, --head-bits).

What is stored is rounded a second time here, with numpy, and decoded by tools/read_packed.py; the
blocks' shards do not change; eval, generate, export, distill, inspect and --resume work on it.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

sys.path.insert(0, str(bt.READ_PACKED.parent))
import read_packed

EMBED, HEAD = "model.embed_tokens", "lm_head"
LAST = "model-00003-of-00003.safetensors"


def rounded(weight, bits, block_size):
    """The weights that round_rows() leaves, in fp32 but for the errors, as it does."""
    columns = []
    for start in range(0, weight.shape[1], block_size):
        part = weight[:, start : start + block_size].astype(np.float32)
        largest = np.abs(part).max(axis=1, keepdims=True)
        low, high = (-127, 127) if bits == 8 else (-8, 7)
        best, least = None, None
        for steps in [127] if bits == 8 else [7, 7.5, 8, 8.5, 9]:
            scale = (largest / np.float32(steps)).astype(np.float16).astype(np.float32)
            safe = np.where(scale == 0, np.float32(1), scale)
            codes = np.where(scale == 0, 0, np.clip(np.rint(part / safe), low, high))
            values = codes.astype(np.float32) * scale
            error = ((part - values).astype(np.float64) ** 2).cumsum(axis=1)[:, -1:]
            if best is None:
                best, least = values, error
            better = error < least
            best, least = np.where(better, values, best), np.where(better, error, least)
        columns.append(best)
    return np.concatenate(columns, axis=1)


class EmbeddingBits(bt.SharedTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        change = lambda config, _: config.update(eos_token_id=None)  # a text as long as asked for
        cls.models = {False: bt.make_tiny_llama(cls.maker.dir / "untied", change=change),
                      True: bt.make_tiny_llama(cls.maker.dir / "tied", tied=True, change=change)}
        cls.tokens = cls.maker.calibration(rows=3, length=64)
        cls.results, cls.reports = {}, {}
        for case in ((False, 16, None), (False, 8, None), (False, 4, 8), (False, 16, 4),
                     (True, 16, None), (True, 8, None), (True, 4, None)):
            cls.results[case], cls.reports[case] = cls.maker.quantize(case)

    def arguments(self, case, *more):
        tied, embedding, head = case
        flags = ("--embedding-bits", embedding) if embedding != 16 else ()
        flags += ("--head-bits", head) if head else ()
        return ("quantize", "--model", self.models[tied], "--method", "arb", "--block-size", 32,
                "--calib", self.tokens, *flags, *more)

    def quantize(self, case, *more, name=None):
        out = self.dir / (name or "-".join(map(str, case)))
        return out, self.report(*self.arguments(case, *more), "--out", out)

    def original(self, tied, module):
        header, data = bt.read_parts(self.models[tied] / "model.safetensors")
        entry = header[f"{module}.weight"]
        return np.frombuffer(data[slice(*entry["data_offsets"])], "<f2").reshape(entry["shape"])

    def stored(self, case):
        """{module: bits} that should be integers."""
        tied, embedding, head = case
        wanted = {EMBED: embedding} | ({} if tied else {HEAD: head or 16})
        return {module: bits for module, bits in wanted.items() if bits != 16}

    def test_what_is_stored(self):
        for case, out in self.results.items():
            with self.subTest(case=case):
                tied, stored = case[0], self.stored(case)
                header, _ = bt.read_parts(out / LAST)
                manifest = json.loads((out / "manifest.json").read_text())
                config = json.loads((out / "config.json").read_text())["quantization_config"]
                version = 3 if stored else 1
                self.assertEqual(manifest["format_version"], version)
                self.assertEqual(config["format_version"], version)
                self.assertEqual("lm_head" in config["modules_not_quantized"],
                                 not tied and HEAD not in stored)
                if not stored:
                    self.assertEqual(header["__metadata__"], {"format": "pt"})
                    self.assertNotIn("integer_rows", manifest)
                    self.assertNotIn("embedding_bits", manifest["settings"])
                packed = read_packed.open_packed(out)
                for module in (EMBED,) if tied else (EMBED, HEAD):
                    self.assertEqual(f"{module}.weight" in header, module not in stored)
                    self.assertEqual(module in read_packed.modules(packed), module in stored)
                for module, bits in stored.items():
                    weight = self.original(tied, module)
                    decoded = read_packed.decode(packed, module)
                    expected = rounded(weight, bits, weight.shape[1] if bits == 8 else 32)
                    self.assertEqual((decoded != expected).sum(), 0)
                    report = {r["name"]: r for r in manifest["integer_rows"]}[module]
                    difference = weight.astype(np.float64) - expected
                    error = (difference**2).sum() / (weight.astype(np.float64) ** 2).sum()
                    self.assertAlmostEqual(report["error"], error, delta=1e-9)
                    per_weight = 8 + 16 / 64 if bits == 8 else 4 + 16 / 32
                    self.assertAlmostEqual(report["stored_bits"], per_weight)
                    self.assertEqual((report["bits"], report["shape"]), (bits, [300, 64]))
                    # A step's square / 12, with a largest weight of 5 (of 32: 3.5) deviations.
                    self.assertLess(error, (5 / 127) ** 2 / 12 if bits == 8 else (3.5 / 7) ** 2 / 12)

    def test_the_blocks_do_not_change(self):
        for case, out in self.results.items():
            plain = self.results[case[0], 16, None]
            for shard in ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"):
                self.assertEqual((out / shard).read_bytes(), (plain / shard).read_bytes(), case)

    def test_file_bits_everywhere(self):
        for case, out in self.results.items():
            with self.subTest(case=case):
                tied, report = case[0], self.reports[case]
                header, _ = bt.read_parts(self.models[tied] / "model.safetensors")
                count = sum(int(np.prod(entry["shape"])) for name, entry in header.items()
                            if name != "__metadata__")
                size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
                bits = 8 * size / count
                self.assertEqual(report["parameters"], count)
                self.assertAlmostEqual(report["file_bits"], bits)
                manifest = json.loads((out / "manifest.json").read_text())
                self.assertAlmostEqual(manifest["file_bits"], bits)
                seen = self.report("inspect", out)
                self.assertAlmostEqual(seen["totals"]["file_bits"], bits)
                rows = {entry["name"]: entry["bits"] for entry in seen.get("integer_rows", [])}
                self.assertEqual(rows, self.stored(case))
                self.assertIn(f"whole file: {bits:.4f} bits", self.billm("inspect", out).stdout)
                evaluated = self.report("eval", "--model", out, "--ppl", self.tokens)
                self.assertAlmostEqual(evaluated["file_bits"], bits)
                self.assertAlmostEqual(evaluated["stored_bits"], report["stored_bits"])
                dry = self.report(*self.arguments(case, "--dry-run"))
                # An estimate without the headers, which count in a model of this size.
                headers = 8 * sum(8 + int.from_bytes(path.read_bytes()[:8], "little")
                                  for path in out.glob("*.safetensors")) / count
                self.assertAlmostEqual(dry["file_bits"], bits - headers, delta=0.25)
        text = self.billm(*self.arguments((False, 4, 8), "--dry-run")).stdout
        self.assertIn("file bits", text)

    def dense(self, case):
        out = self.dir / "dense"
        shutil.rmtree(out, ignore_errors=True)
        self.billm("export", "--dense", "--model", self.results[case], "--out", out, "--quiet")
        return out

    def test_eval_generate_and_export(self):
        for case, out in self.results.items():
            if not self.stored(case):
                continue
            with self.subTest(case=case):
                dense = self.dense(case)
                header, data = bt.read_parts(dense / LAST)
                for module in self.stored(case):
                    entry = header[f"{module}.weight"]
                    self.assertEqual(entry["dtype"], "F16")
                    weight = np.frombuffer(data[slice(*entry["data_offsets"])], "<f2")
                    expected = read_packed.decode(read_packed.open_packed(out), module)
                    np.testing.assert_array_equal(weight, expected.astype("<f2").ravel())
                ours = self.report("eval", "--model", out, "--ppl", self.tokens)
                theirs = self.report("eval", "--model", dense, "--ppl", self.tokens)
                self.assertAlmostEqual(ours["ppl"] / theirs["ppl"], 1, delta=2e-3)  # fp16
                ids = [self.report("generate", "--model", model, "--prompt", "to be", "-n", 8,
                                   "--greedy", *more)["ids"]
                       for model, more in ((out, ()), (out, ("--run-head-bits", 32)))]
                self.assertEqual(ids[0], ids[1])

    def test_distill_keeps_them(self):
        case = (False, 4, 8)
        out = self.dir / "learned"
        self.billm("distill", "--model", self.results[case], "--original", self.models[False],
                   "--calib", self.tokens, "--steps", 2, "--window", 20, "--out", out, "--quiet")
        before, after = (bt.read_parts(path / LAST) for path in (self.results[case], out))
        for module in (EMBED, HEAD):
            self.assertEqual(after[0]["__metadata__"][module], before[0]["__metadata__"][module])
            for plane in ("codes", "scales"):
                one, other = (data[slice(*header[f"{module}.{plane}"]["data_offsets"])]
                              for header, data in (before, after))
                self.assertEqual(one, other)
        read_packed.open_packed(out)
        manifest = json.loads((out / "manifest.json").read_text())
        self.assertEqual(manifest["format_version"], 3)
        self.assertEqual([rows["bits"] for rows in manifest["integer_rows"]], [4, 8])
        self.report("eval", "--model", out, "--ppl", self.tokens)

    def test_threads_do_not_matter(self):
        case = (False, 4, 8)
        out, _ = self.quantize(case, "--threads", 3, name="threads")
        self.assertEqual(bt.digests(out), bt.digests(self.results[case]))

    def test_refusals(self):
        out = ("--out", self.dir / "out", "--quiet")
        for more in ((), ("--dry-run",)):
            result = self.run_billm(*self.arguments((True, 8, 8), *more), *out)
            self.assert_error(result, "quantize", bt.USAGE, "--head-bits", "is its embedding")
        for flag in ("--embedding-bits", "--head-bits"):
            for value in ("5", "32", "x"):
                result = self.run_billm(*self.arguments((False, 16, None), flag, value), *out)
                self.assert_error(result, "quantize", bt.USAGE, flag)

    def test_resume_compares_them(self):
        settings = json.loads((self.results[False, 4, 8] / "manifest.json").read_text())["settings"]
        partial = self.dir / "again.partial"
        partial.mkdir()
        (partial / "journal.json").write_text(json.dumps({"settings": settings}))
        for case, needle in (((False, 8, 8), "embedding_bits was 4, is 8"),
                             ((False, 4, None), "head_bits was 8, is null")):
            result = self.run_billm(*self.arguments(case, "--resume"), "--out", self.dir / "again",
                                    "--quiet")
            self.assert_error(result, "quantize", bt.USAGE, needle)

    def test_damage(self):
        out = self.dir / "damaged"
        shutil.copytree(self.results[False, 4, 8], out)
        path = out / LAST
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        for command in (("eval", "--ppl", self.tokens, "--model", out), ("inspect", out)):
            result = self.run_billm(*command, "--quiet")
            self.assert_error(result, command[0], bt.BAD_INPUT, LAST, "checksum")


if __name__ == "__main__":
    bt.main()
