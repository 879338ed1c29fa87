"""Data sets by name: parquet and json.gz from a fake hub, from huggingface_hub's cache and from
directories; the same text as from plain files; damage. What billm reads is compared through
the losses of `billm eval` and the results of `billm quantize` on the same text given as a file.
"""

import gzip
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt
import hub_testing

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as failure:
    bt.skip(f"no pyarrow: {failure}", data=True)

WIKITEXT = "wikitext-2-raw-v1/{}-00000-of-00001.parquet"
C4 = {"train": "en/c4-train.00000-of-01024.json.gz",
      "validation": "en/c4-validation.00000-of-00008.json.gz"}
PTB = "penn_treebank/{}/0000.parquet"


def parquet(rows, column="text", kind=None, **options):
    data = io.BytesIO()
    table = pyarrow.table({column: pyarrow.array(rows, kind or pyarrow.string())})
    pyarrow.parquet.write_table(table, data, **options)
    return data.getvalue()


def documents(texts):
    lines = (json.dumps({"text": text, "url": "u"}) + "\n" for text in texts)
    return gzip.compress("".join(lines).encode())


def words(count, seed):
    generator = random.Random(seed)
    return " ".join("".join(generator.choices("aeinorst", k=5)) for _ in range(count))


class DataSets(hub_testing.HubTestCase):
    def setUp(self):
        super().setUp()
        self.model = self.dir / "original"

    def eval(self, name, *more, **options):
        return self.report("eval", "--model", self.model, "--ppl", name, "--seqlen", 64, *more,
                           **options)

    def assert_same(self, report, text, windows=0):
        """The report is that of this text, given as a file."""
        path = self.dir / "expected.txt"
        path.write_text(text)
        more = ("--windows", windows) if windows else ()
        expected = self.eval(path, *more)
        self.assertEqual(report["window_nll"], expected["window_nll"])
        self.assertGreater(report["windows"], 1)

    def calibrated(self, name, **options):
        """The tensors of a model quantized on that text."""
        out = self.dir / f"out-{len(list(self.dir.glob('out-*')))}"
        self.billm("quantize", "--model", self.model, "--method", "gptq", "--calib", name,
                   "--nsamples", 2, "--seqlen", 32, "--out", out, "--quiet", **options)
        return b"".join(path.read_bytes() for path in sorted(out.glob("*.safetensors")))

    def add_wikitext(self, **splits):
        files = {WIKITEXT.format(name): parquet(rows) for name, rows in splits.items()}
        return self.hub.add("Salesforce/wikitext", files, lfs=files, kind="datasets")

    def test_wikitext2(self):
        rows = ["", " = Title = \n", "", *(f" {words(30, i)} \n" for i in range(9))]
        train = [words(40, i) + "\n" for i in range(20, 30)]
        repo = self.add_wikitext(test=rows, train=train)
        self.assert_same(self.eval("wikitext2"), "\n\n".join(rows))
        found = self.snapshot(repo) / WIKITEXT.format("test")
        self.assertEqual(os.readlink(found), f"../../../blobs/{repo.etag(WIKITEXT.format('test'))}")
        (self.dir / "train.txt").write_text("\n\n".join(train))
        self.assertEqual(self.calibrated("wikitext2"), self.calibrated(self.dir / "train.txt"))
        self.hub.requests.clear()
        self.variables["HF_HUB_OFFLINE"] = "1"
        self.assert_same(self.eval("wikitext2"), "\n\n".join(rows))
        self.assertEqual(self.hub.requests, [])
        self.assert_complete(repo)
        library = hub_testing.hub_library()
        self.assertEqual(Path(library.try_to_load_from_cache(
            "Salesforce/wikitext", WIKITEXT.format("test"), repo_type="dataset",
            cache_dir=self.cache)), found)
        self.assertEqual(library.scan_cache_dir(self.cache).warnings, [])

    def test_wikitext2_is_the_text_of_the_raw_files(self):
        data = Path(os.environ.get("BILLM_DATA_DIR", "")) / "wikitext2"
        if not (data / "wiki.test.raw").is_file():
            self.skipTest("no BILLM_DATA_DIR/wikitext2")
        # As HuggingFace's script makes them: a line with its newline, or nothing if it is blank.
        for raw, split in (("wiki.test.raw", "test"), ("wiki.valid.raw", "validation")):
            lines = (data / raw).read_bytes().decode().split("\n")
            rows = [line + "\n" if line.strip() else "" for line in lines[:-1]]
            place = self.dir / "data" / "wikitext2" / WIKITEXT.format(split)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(parquet(rows, row_group_size=1000))
        ours = self.eval("wikitext2", "--data-dir", self.dir / "data", "--windows", 40)
        theirs = self.eval("wikitext2", "--data-dir", data.parent, "--windows", 40)
        self.assertEqual(ours["window_nll"], theirs["window_nll"])
        self.assertEqual(ours["text_sha256"], theirs["text_sha256"])

    def test_ptb(self):
        test = [words(9, i) for i in range(30)]
        train = [words(8, i) for i in range(50, 90)]
        files = {PTB.format("test"): parquet(test, "sentence"),
                 PTB.format("train"): parquet(train, "sentence", pyarrow.large_string())}
        repo = self.hub.add("ptb-text-only/ptb_text_only", files, kind="datasets",
                            revisions=["refs/convert/parquet"])
        del repo.revisions["main"]
        self.assert_same(self.eval("ptb"), " ".join(test))
        (self.dir / "train.txt").write_text(" ".join(train))
        self.assertEqual(self.calibrated("ptb"), self.calibrated(self.dir / "train.txt"))
        ref = self.folder(repo.id, "datasets") / "refs" / "refs" / "convert" / "parquet"
        self.assertEqual(ref.read_text(), repo.commit)

    def add_c4(self, train, validation):
        files = {C4["train"]: train, C4["validation"]: validation}
        return self.hub.add("allenai/c4", files, lfs=files, kind="datasets")

    def test_c4(self):
        validation = [words(20, i) + "\nend" for i in range(1150)]
        train = [words(30, i) for i in range(2000, 2100)]
        self.add_c4(documents(train), documents(validation))
        report = self.eval("c4")
        self.assertEqual(report["windows"], 256)
        self.assertIn("the first 1100 documents", report["dataset_description"])
        self.assert_same(report, " ".join(validation[:1100]), windows=256)
        # 2 x 32 tokens: as many documents as have 2048 bytes.
        count, size = 0, 0
        while size < 2048:
            size += len(train[count])
            count += 1
        (self.dir / "train.txt").write_text("\n\n".join(train[:count]))
        self.assertEqual(self.calibrated("c4"), self.calibrated(self.dir / "train.txt"))

    def test_c4_reads_only_what_it_needs(self):
        # Behind the documents that are needed the file is damaged.
        good = documents([words(30, i) for i in range(3000)])
        self.add_c4(good + b"\x1f\x8bdamaged" * 50_000, good)
        self.calibrated("c4")

    def test_local_places_come_first(self):
        place = self.dir / "data" / "ptb" / PTB.format("test")
        place.parent.mkdir(parents=True)
        rows = [words(9, i) for i in range(30)]
        place.write_bytes(parquet(rows, "sentence", compression="zstd"))
        self.assert_same(self.eval("ptb", "--data-dir", self.dir / "data"), " ".join(rows))
        self.variables["BILLM_DATA_DIR"] = str(self.dir / "data")
        self.assert_same(self.eval("ptb"), " ".join(rows))
        self.assertEqual(self.hub.requests, [])
        # A directory from which the set is missing: said, then elsewhere.
        self.add_wikitext(test=rows)
        result = self.billm("eval", "--model", self.model, "--ppl", "wikitext2", "--seqlen", 64,
                            "--data-dir", self.dir / "data")
        self.assertIn("holds no wikitext2 test", result.stderr)
        self.assertIn("downloading Salesforce/wikitext (1 file", result.stderr)
        self.fails(bt.BAD_INPUT, "eval", "--model", self.model, "--ppl", "ptb", "--data-dir",
                   self.dir / "none", needles=["--data-dir", "expected a directory"])

    def test_a_former_name_in_the_cache(self):
        rows = [words(9, i) + "\n" for i in range(30)]
        repo = self.hub.add("wikitext", {WIKITEXT.format("test"): parquet(rows)}, kind="datasets")
        hub_testing.hub_library()
        code = ("import huggingface_hub as h, sys; h.hf_hub_download('wikitext', sys.argv[1], "
                "repo_type='dataset', revision=sys.argv[2])")
        subprocess.run([sys.executable, "-c", code, WIKITEXT.format("test"), repo.commit],
                       env=self.environment(), check=True, capture_output=True, timeout=120)
        self.hub.requests.clear()
        self.assert_same(self.eval("wikitext2"), "\n\n".join(rows))
        self.assertEqual(self.hub.requests, [])

    def refused(self, name, *needles, code=bt.BAD_INPUT):
        self.fails(code, "eval", "--model", self.model, "--ppl", name, "--seqlen", 64,
                   needles=needles)

    def local(self, set_name, path, content):
        place = self.dir / "data" / set_name / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        self.variables["BILLM_DATA_DIR"] = str(self.dir / "data")
        return place

    def test_damaged_parquet(self):
        good = parquet([words(9, i) for i in range(300)])
        place = self.local("wikitext2", WIKITEXT.format("test"), good)
        cuts = {"empty": b"", "no parquet": b"PAR1" + b"x" * 100, "head": good[:100],
                "cut": good[:-1], "tail": good[-200:], "magic": good[:-4] + b"PARX",
                "footer": good[:-8] + b"\xff\xff\xff\x7f" + good[-4:]}
        for name, content in cuts.items():
            with self.subTest(name=name):
                place.write_bytes(content)
                self.refused("wikitext2", str(place), "cannot read as parquet")
        place.write_bytes(good[:4] + bytes(len(good) // 3) + good[4 + len(good) // 3 :])
        self.refused("wikitext2", str(place))

    def test_flipped_bytes(self):
        """Whatever is damaged: a clear line or a text, never a crash."""
        good = parquet([words(9, i) for i in range(100)])
        place = self.local("wikitext2", WIKITEXT.format("test"), good)
        generator = random.Random(5)
        for _ in range(12):
            bad = bytearray(good)
            for _ in range(3):
                bad[generator.randrange(len(bad))] ^= 1 << generator.randrange(8)
            place.write_bytes(bytes(bad))
            result = self.run_billm("eval", "--model", self.model, "--ppl", "wikitext2", "--seqlen",
                                    64, "--windows", 1, "--quiet")
            self.assertIn(result.returncode, (0, bt.BAD_INPUT), result.stderr)
            self.assertLessEqual(result.stderr.count("\n"), 1)
            self.assertNotIn("internal error", result.stderr)

    def test_wrong_columns(self):
        place = WIKITEXT.format("test")
        for content, needle in ((parquet(["a"], "page"), 'a column "text", got page'),
                                (parquet([1, 2], kind=pyarrow.int64()),
                                 "expected strings, got int64"),
                                (parquet(["a", None]), "row 1: expected a string, got null"),
                                (parquet([]), "expected text, got none")):
            with self.subTest(needle=needle):
                self.local("wikitext2", place, content)
                self.refused("wikitext2", place, needle)

    def test_damaged_gzip(self):
        good = documents([words(9, i) for i in range(3000)])
        flipped = bytearray(good)
        flipped[len(good) // 3] ^= 0xff
        cases = {"cut": (good[: len(good) // 3], "it ends too early"),
                 "plain": (b'{"text": "a"}\n', "it is not compressed"), "empty": (b"", ""),
                 "flipped": (bytes(flipped), ""),
                 "no json": (gzip.compress(b"{}\nno json\n"), "line 1"),
                 "no text": (gzip.compress(b'{"text": "a"}\n{"text": 3}\n'), "line 2"),
                 "nothing": (gzip.compress(b""), "expected text, got none")}
        for name, (content, needle) in cases.items():
            with self.subTest(name=name):
                place = self.local("c4", C4["validation"], content)
                self.refused("c4", place.name, needle)

    def test_downloads_that_fail(self):
        self.refused("ptb", "ptb-text-only/ptb_text_only", "no such repository")
        self.variables["HF_HUB_OFFLINE"] = "1"
        self.refused("wikitext2", "wikitext2 test: not found", "HF_HUB_OFFLINE", "--data-dir")
        del self.variables["HF_HUB_OFFLINE"]
        repo = self.add_wikitext(test=[words(9, 1)] * 99)
        file = WIKITEXT.format("test")
        self.hub.fault(file, server="cdn", body=bytes(len(repo.files[file])))
        self.refused("wikitext2", "checksum", code=bt.FAILURE)
        self.assert_nothing_wrong()


if __name__ == "__main__":
    bt.main()
