"""Mixtures of calibration texts (--calib wikitext2:3,c4:1): which windows are taken, in which order.

Computed a second time here, with numpy and exact fractions, from the texts' tokens; compared by the
digests that the manifest records. One text alone gives the bytes that it always gave.
"""

import hashlib
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

LENGTH = 24
MASK = (1 << 64) - 1


class SplitMix64:
    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        return z ^ z >> 31

    def below(self, bound):
        while True:
            drawn = self.next()
            if drawn >= (1 << 64) % bound:
                return drawn % bound


def sampled(tokens, count, seed):
    random = SplitMix64(seed)
    starts = [random.below(len(tokens) - LENGTH + 1) for _ in range(count)]
    return np.array([tokens[start : start + LENGTH] for start in starts], dtype="<i4")


def shares(count, weights):
    """Largest remainder."""
    exact = [Fraction(count) * Fraction(w) / sum(map(Fraction, weights)) for w in weights]
    result = [int(share) for share in exact]
    order = sorted(range(len(weights)), key=lambda i: (result[i] - exact[i], i))
    for i in order[: count - sum(result)]:
        result[i] += 1
    return result


def interleaved(parts, seed):
    random = SplitMix64(seed ^ MASK)
    places = [(Fraction(j * 2**20 + (random.next() >> 44), len(windows)), part, j)
              for part, windows in enumerate(parts) for j in range(len(windows))]
    return np.array([parts[part][j] for _, part, j in sorted(places)], dtype="<i4")


def digest(windows):
    rows, cols = windows.shape
    return hashlib.sha256(f"{rows}x{cols};".encode() + windows.astype("<i4").tobytes()).hexdigest()


def words(count, seed):
    random = np.random.default_rng(seed)
    return " ".join("".join(random.choice(list("etaoinshr"), random.integers(1, 8)))
                    for _ in range(count))


class Mixture(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model")
        data = self.dir / "data"
        (data / "wikitext2").mkdir(parents=True)
        (data / "c4").mkdir()
        self.wiki = "\n".join(words(12, i) for i in range(30)) + "\n"
        (data / "wikitext2" / "wiki.valid.raw").write_text(self.wiki)
        self.documents = [words(25, 100 + i) for i in range(20)]
        (data / "c4" / "sample.jsonl").write_text(
            "".join(json.dumps({"text": document}) + "\n" for document in self.documents))
        self.notes = self.dir / "notes.txt"
        self.notes.write_text(words(300, 7))
        self.ids = self.dir / "ids.npy"
        self.npy = np.random.default_rng(3).integers(0, 300, (6, LENGTH), dtype=np.int32)
        np.save(self.ids, self.npy)

    def tokens(self, text):
        path = self.dir / "text"
        path.write_text(text)
        line = self.billm("tokenize", "--model", self.model, "--file", path).stdout
        return [int(number) for number in line.split()]

    def wiki_tokens(self):
        # Every line is a row and keeps its newline; rows are joined by two.
        return self.tokens("\n\n".join(line + "\n" for line in self.wiki.split("\n")[:-1]))

    def arguments(self, calib, *more):
        return ("quantize", "--model", self.model, "--method", "rtn", "--calib", calib, "--seqlen",
                LENGTH, "--data-dir", self.dir / "data", *more)

    def quantize(self, calib, *more, name="out"):
        """(directory, JSON report)"""
        out = self.dir / name
        return out, self.report(*self.arguments(calib, *more), "--out", out)

    def settings(self, out):
        return json.loads((out / "manifest.json").read_text())["settings"]

    def test_windows_of_a_mixture(self):
        # c4's documents: the first half is for calibration, the second is what eval reads.
        c4 = self.tokens("\n\n".join(self.documents[:10]))
        for count, seed in ((8, 0), (9, 12345)):
            taken = shares(count, [3, 1])
            parts = [sampled(self.wiki_tokens(), taken[0], seed), sampled(c4, taken[1], seed)]
            out, report = self.quantize("wikitext2:3,c4:1", "--nsamples", count, "--seed", seed,
                                        name=f"out{count}")
            settings = self.settings(out)
            self.assertEqual(settings["calibration"], "wikitext2:3,c4:1")
            self.assertEqual(settings["nsamples"], count)
            expected = [{"name": name, "weight": weight, "windows": len(part),
                         "digest": digest(part)}
                        for name, weight, part in zip(("wikitext2", "c4"), (3, 1), parts)]
            self.assertEqual(settings["calibration_parts"], expected)
            self.assertEqual(settings["calibration_digest"], digest(interleaved(parts, seed)))
            self.assertEqual(report["calibration_parts"], expected)

    def test_every_kind_of_text(self):
        taken = shares(7, ["0.5", 1, "1.25"])
        parts = [sampled(self.tokens(self.notes.read_text()), taken[0], 0),
                 self.npy[: taken[1]],
                 sampled(self.wiki_tokens(), taken[2], 0)]
        calib = f"{self.notes}:0.5,{self.ids},wikitext2:1.25"
        out, _ = self.quantize(calib, "--nsamples", 7)
        settings = self.settings(out)
        self.assertEqual(settings["calibration"], "notes.txt:0.5,ids.npy:1,wikitext2:1.25")
        self.assertEqual([part["windows"] for part in settings["calibration_parts"]], taken)
        self.assertEqual(settings["calibration_digest"], digest(interleaved(parts, 0)))
        seen = self.report(*self.arguments(calib, "--nsamples", 7, "--dry-run"))
        self.assertEqual(seen["calibration_parts"],
                         [{key: value for key, value in part.items() if key != "digest"}
                          for part in settings["calibration_parts"]])
        text = self.billm(*self.arguments(calib, "--nsamples", 7, "--dry-run")).stdout
        for name, count in zip(("notes.txt", "ids.npy", "wikitext2"), taken):
            self.assertIn(f"{count} windows of {name}", text)

    def test_one_text_is_as_it_was(self):
        expected = sampled(self.wiki_tokens(), 5, 3)
        digests = []
        for i, calib in enumerate(("wikitext2", "wikitext2:7")):
            out, report = self.quantize(calib, "--nsamples", 5, "--seed", 3, name=f"out{i}")
            settings = self.settings(out)
            self.assertEqual(settings["calibration"], "wikitext2")
            self.assertEqual(settings["calibration_digest"], digest(expected))
            self.assertNotIn("calibration_parts", settings)
            self.assertNotIn("calibration_parts", report)
            digests.append(bt.digests(out))
        self.assertEqual(*digests)
        # Of the program before there were mixtures.
        self.assertEqual(digest(expected), ONE_TEXT)

    def test_resume_compares_the_mixture(self):
        out, _ = self.quantize("wikitext2:3,c4:1", "--nsamples", 8)
        settings = self.settings(out)
        partial = self.dir / "again.partial"
        partial.mkdir()
        (partial / "journal.json").write_text(json.dumps({"settings": settings}))
        for calib, needles in (("wikitext2:2,c4:1", ["calibration_parts was", "calibration was"]),
                               ("wikitext2:6,c4:2", ["calibration_parts was"]),
                               ("wikitext2", ["calibration_parts was", "is null"])):
            result = self.run_billm(*self.arguments(calib, "--nsamples", 8, "--resume"), "--out",
                                    self.dir / "again", "--quiet")
            self.assert_error(result, "quantize", bt.USAGE, "--resume: settings have changed",
                              *needles)

    def test_distill_takes_mixtures(self):
        out, _ = self.quantize("wikitext2", "--nsamples", 2)
        learned = self.dir / "learned"
        more = ("--model", out, "--original", self.model, "--calib", f"wikitext2,{self.notes}:3",
                "--seqlen", LENGTH, "--nsamples", 16, "--data-dir", self.dir / "data")
        seen = self.report("distill", *more, "--dry-run")
        self.assertEqual([part["windows"] for part in seen["calibration_parts"]], [4, 12])
        self.billm("quantize", "--model", self.model, "--method", "arb", "--block-size", 32,
                   "--calib", self.ids, "--out", self.dir / "arb", "--quiet")
        more = ("--model", self.dir / "arb", *more[2:])
        report = self.report("distill", *more, "--steps", 2, "--window", 20, "--out", learned)
        self.assertEqual([part["windows"] for part in report["calibration_parts"]], [4, 12])
        manifest = json.loads((learned / "manifest.json").read_text())
        self.assertEqual(manifest["distill"]["calibration_parts"], report["calibration_parts"])

    def test_refusals(self):
        short = self.dir / "short.txt"
        short.write_text("too short")
        out = ("--out", self.dir / "out", "--quiet")
        for calib, code, *needles in (
                (f"wikitext2,{short}", bt.BAD_INPUT, "short.txt", f"{LENGTH} tokens"),
                (f"wikitext2,{self.ids}:7", bt.BAD_INPUT, "ids.npy", "at least 7", "got 6 of 24"),
                (f"wikitext2,{self.dir / 'none.txt'}:2", bt.BAD_INPUT, "none.txt: expected"),
                ("wikitext2:100,c4", bt.USAGE, "c4: expected at least one of the 8 windows"),
                ("wikitext2:0,c4", bt.USAGE, "wikitext2:0", "weight above 0"),
                ("wikitext2,wikitext2", bt.USAGE, "named twice")):
            with self.subTest(calib=calib):
                result = self.run_billm(*self.arguments(calib, "--nsamples", 8), *out)
                self.assert_error(result, "quantize", code, *needles)
        longer = ["25" if word == LENGTH else word
                  for word in self.arguments(f"wikitext2,{self.ids}", "--nsamples", 8)]
        result = self.run_billm(*longer, *out)
        self.assert_error(result, "quantize", bt.BAD_INPUT, "ids.npy", "sequences of 25 tokens")


ONE_TEXT = "fb86d011f73b0b80aee7b51c2416835c02e878f2effd95befee6acef04913224"

if __name__ == "__main__":
    bt.main()
