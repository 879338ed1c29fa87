"""Wrong command lines and texts: one clear line, the right exit code, nothing touched."""

import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt
import usage_testing


class BadUsage(usage_testing.UsageTestCase):
    # --- words and flags --------------------------------------------------------------------------

    def test_nm(self):
        for nm in ("9:8", "0:8", "x", "4", "4:", ":8", "4:8:2", "-4:8", "4:1", "4:17", "4 : 8",
                   "4:99999999999"):
            with self.subTest(nm=nm):
                self.refused(bt.USAGE, f"--nm={nm}", needles=["--nm"], method="stbllm")

    def test_nm_without_a_mask(self):
        self.refused(bt.USAGE, "--nm", "4:8", needles=["--nm", "billm"], method="billm")
        self.refused(bt.USAGE, "--nm", "4:8", needles=["--nm", "rtn"])

    def test_block_size_that_does_not_fit(self):
        self.refused(bt.USAGE, "--block-size", "20", "--nm", "4:8", needles=["--block-size 20"],
                     method="stbllm")
        for size in ("0", "-128", "7", "1000000", "x"):
            with self.subTest(size=size):
                self.refused(bt.USAGE, f"--block-size={size}", needles=["--block-size"])

    def test_unknown_method(self):
        self.refused(bt.USAGE, needles=["awq", "billm, stbllm"], method="awq")

    def test_a_flag_without_a_value(self):
        for flag in ("--nm=", "--bits=", "--calib=", "--seed="):
            with self.subTest(flag=flag):
                self.refused(bt.USAGE, flag, "8", method="stbllm",
                             needles=[f"{flag}: expected a value after the '='"])

        # What only looks like one is a value.
        self.fails(bt.BAD_INPUT, "generate", "--model", self.dir / "none", "--prompt", "--seed=",
                   needles=["none"])
        self.fails(bt.USAGE, "generate", "--nosuch=", "8", needles=["--nosuch="])

    def test_flags_of_other_methods(self):
        for method, *flags in (("billm", "--bits", "2"), ("pbllm", "--bits", "8"),
                               ("billm", "--salient", "0.1"), ("gptq", "--salient", "0.1"),
                               ("rtn", "--no-act-order"), ("gptq", "--compat", "reference"),
                               ("pbllm", "--compat", "reference"), ("pbllm", "--nm", "4:8"),
                               # At their defaults, too.
                               ("billm", "--salient-metric", "hessian"), ("rtn", "--refine", "4"),
                               ("gptq", "--compat", "none"), ("rtn", "--damping", "0.01"),
                               ("gptq", "--scales", "log8"), ("arb", "--nm-alloc", "uniform"),
                               ("dbf", "--block-size", "128"), ("dbf", "--nm", "4:8"),
                               ("dbf", "--scales", "f16"), ("arb", "--bits", "1"),
                               ("trellis", "--block-size", "128"), ("trellis", "--scales", "f16"),
                               ("arb", "--sweeps", "1")):
            with self.subTest(method=method, flags=flags):
                self.refused(bt.USAGE, *flags, needles=[flags[0], method, "leave it out"],
                             method=method)

    def test_rotations(self):
        for method in ("stbllm", "pbllm", "dbf"):
            for flags in (("--rotate", "both"), ("--rotate-seed", "1")):
                with self.subTest(method=method, flags=flags):
                    self.refused(bt.USAGE, *flags, method=method,
                                 needles=[f"{flags[0]}: --method {method} does not use it (leave "
                                          "it out, or choose a method that does: billm, arb, rtn, "
                                          "gptq, trellis)"])
        self.refused(bt.USAGE, "--compat", "reference", "--rotate", "both", method="billm",
                     needles=["--rotate: --method billm does not use it with --compat reference "
                              "(leave it out)"])
        self.refused(bt.USAGE, "--compat", "reference", "--rotate", "both", method="stbllm",
                     needles=["--rotate: --method stbllm does not use it (leave it out"])
        for flags in (("--rotate-seed", "0"), ("--rotate-seed", "3", "--rotate", "none")):
            for method in ("billm", "arb", "rtn", "gptq", "trellis"):
                if method == "trellis" and "--rotate" not in flags:
                    continue  # rotated by default
                with self.subTest(method=method, flags=flags):
                    self.refused(bt.USAGE, *flags, method=method,
                                 needles=[f"--rotate-seed: --method {method} does not use it "
                                          "without --rotate (leave it out)"])
        for flag, value in (("--rotate", "sideways"), ("--rotate-seed", "-1"),
                            ("--rotate-seed", "2147483648"), ("--rotate-seed", "1.5"),
                            ("--rotate-seed", "x")):
            with self.subTest(flag=flag, value=value):
                more = () if flag == "--rotate" else ("--rotate", "both")
                self.refused(bt.USAGE, *more, f"{flag}={value}", method="arb",
                             needles=[f"{flag} {value}: expected "])

    def test_flags_that_other_flags_turn_off(self):
        for method, flags, needle in (
                ("billm", ("--compat", "reference", "--refine", "4"), "--refine"),
                ("stbllm", ("--compat", "reference", "--classes", "3"), "--classes"),
                ("rtn", ("--bits", "2", "--scales", "log8"), "--scales"),
                ("arb", ("--classes", "1", "--max-salient", "9"), "--max-salient")):
            with self.subTest(method=method, flags=flags):
                self.refused(bt.USAGE, *flags, needles=[needle, "does not use it with"],
                             method=method)

    def test_bits_and_shares_out_of_range(self):
        for method, flag, value in (("rtn", "--bits", "0"), ("rtn", "--bits", "5"),
                                    ("gptq", "--bits", "1"), ("gptq", "--bits", "5"),
                                    ("gptq", "--bits", "x"), ("gptq", "--bits", "2.5"),
                                    ("dbf", "--bits", "0.4"), ("dbf", "--bits", "1.6"),
                                    ("dbf", "--bits", "-1"), ("dbf", "--bits", "nan"),
                                    ("dbf", "--bits", "inf"), ("dbf", "--bits", "abc"),
                                    ("dbf", "--bits", "1bit"),
                                    ("trellis", "--bits", "0"), ("trellis", "--bits", "1.1"),
                                    ("trellis", "--bits", "3.25"), ("trellis", "--bits", "nan"),
                                    ("trellis", "--sweeps", "-1"), ("trellis", "--sweeps", "0.5"),
                                    ("pbllm", "--salient", "0"),
                                    ("pbllm", "--salient", "0.6"), ("pbllm", "--salient", "nan"),
                                    ("pbllm", "--salient", "x"),
                                    ("pbllm", "--salient-metric", "size")):
            with self.subTest(method=method, flag=flag, value=value):
                self.refused(bt.USAGE, f"{flag}={value}", needles=[flag], method=method)

    def test_tuning(self):
        self.refused(bt.USAGE, "--tune-steps", "9", needles=["--tune-steps", "--tune"])
        self.refused(bt.USAGE, "--tune-steps", "128", needles=["--tune"])  # the default, but given
        self.refused(bt.USAGE, "--tune", "--compat", "reference", needles=["--tune", "--compat"],
                     method="billm")
        self.refused(bt.USAGE, "--tune", "--offsets", "block", needles=["--tune", "--offsets"],
                     method="billm")
        for method, *flags in (("gptq",), ("rtn", "--bits", "2")):
            self.refused(bt.USAGE, "--tune", *flags, needles=["--tune", method], method=method)
        for flag, value in (("--tune-steps", "0"), ("--tune-window", "0"), ("--tune-batch", "0"),
                            ("--tune-code-rate", "-1"), ("--tune-scale-rate", "x"),
                            ("--tune-norm-rate", "nan")):
            with self.subTest(flag=flag):
                self.refused(bt.USAGE, "--tune", f"{flag}={value}", needles=[flag])
        # One sequence of 64 tokens is one window: nothing is left to hold out.
        one = self.calibration(rows=1)
        self.refused(bt.USAGE, "--tune", "--tune-window", "64", needles=["--tune", "two windows"],
                     method="billm", calib=one)

    def test_distill(self):
        packed = self.dir / "packed"
        self.billm(*self.arguments("--quiet", out=packed, method="billm"))
        before = bt.digests(packed)
        good = ("distill", "--calib", self.tokens, "--steps", "2", "--window", "20")
        self.fails(bt.USAGE, *good, "--model", packed, needles=["--original"])
        self.fails(bt.BAD_INPUT, *good, "--model", self.model, "--original", self.model,
                   needles=["is not a packed model"])
        self.fails(bt.BAD_INPUT, *good, "--model", packed, "--original", packed,
                   needles=["quantized already"])
        other = bt.make_tiny_llama(self.dir / "other", blocks=3)
        self.fails(bt.BAD_INPUT, *good, "--model", packed, "--original", other,
                   needles=["is not the model that"])
        self.fails(bt.USAGE, *good, "--model", packed, "--original", self.model, "--out", packed,
                   needles=["exists already", "--overwrite"])
        twin = bt.make_tiny_llama(self.dir / "twin", seed=5)
        self.fails(bt.BAD_INPUT, *good, "--model", packed, "--original", twin,
                   needles=["is not the model that"])
        original = bt.digests(self.model)
        self.fails(bt.USAGE, *good, "--model", packed, "--original", self.model, "--out",
                   self.model, "--overwrite", needles=["--overwrite would remove the model"])
        self.assertEqual(bt.digests(self.model), original)
        for flag, value in (("--steps", "0"), ("--window", "1"), ("--code-rate", "-1"),
                            ("--scale-rate", "nan")):
            self.fails(bt.USAGE, *good[:3], f"{flag}={value}", "--model", packed, "--original",
                       self.model, needles=[flag])
        integers = self.dir / "integers"
        self.billm(*self.arguments("--quiet", out=integers, method="gptq"))
        self.fails(bt.USAGE, *good, "--model", integers, "--original", self.model,
                   needles=["integers"])
        self.assertEqual(bt.digests(packed), before)
        self.assertEqual(sorted(p.name for p in (self.home / "results").glob("*")), [])

    def test_unknown_words(self):
        for flag in ("--nm-alloc", "--compat", "--feedback", "--objective", "--scales", "--offsets",
                     "--device"):
            with self.subTest(flag=flag):
                self.refused(bt.USAGE, flag, "nonsense", needles=["nonsense"], method="stbllm")

    def test_device_that_is_not_here(self):
        if shutil.which("nvidia-smi") is None:
            self.refused(bt.FAILURE, "--device", "cuda", needles=["cuda", "--device cpu"])

    def test_numbers_out_of_range(self):
        for flag, value in (("--nsamples", "0"), ("--seqlen", "1"), ("--seqlen", "9" * 30),
                            ("--threads", "0"), ("--threads", "x"), ("--seed", "-1"),
                            ("--refine", "101"), ("--damping", "-1"), ("--damping", "nan"),
                            ("--max-salient", "4096")):
            self.forget()
            with self.subTest(flag=flag, value=value):
                self.refused(bt.USAGE, f"{flag}={value}", needles=[flag], method="billm")

    def test_unknown_command(self):
        self.assert_error(self.run_billm("quantise"), "", bt.USAGE, "did you mean 'quantize'?")
        self.assert_error(self.run_billm("evla"), "", bt.USAGE, "did you mean 'eval'?")
        self.assert_error(self.run_billm("frobnicate"), "", bt.USAGE, "billm --help")
        self.assert_error(self.run_billm(), "", bt.USAGE, "billm --help")

    def test_unknown_flag(self):
        self.refused(bt.USAGE, "--frobnicate", needles=["--frobnicate", "billm quantize --help"])
        self.assert_error(self.run_billm("eval", "--frobnicate"), "eval", bt.USAGE)
        self.fails(bt.USAGE, "eval", "--ppl", self.tokens, "--run-packed=other",
                   needles=["--run-packed", "decode", "prefill"])

    def test_missing_flags(self):
        self.fails(bt.USAGE, "quantize", needles=["--model"])
        self.fails(bt.USAGE, "eval", "--model", self.model, needles=["--ppl"])
        self.fails(bt.USAGE, "export", "--dense", needles=["--out"])
        self.fails(bt.USAGE, "tokenize", "--model", self.model, needles=["TEXT"])

    def test_no_result_yet(self):
        self.fails(bt.USAGE, "eval", "--ppl", self.tokens, needles=[str(self.home), "--model DIR"])
        self.fails(bt.USAGE, "inspect", needles=["--model DIR"])
        self.fails(bt.USAGE, "export", "--dense", "--out", self.out, needles=["--model DIR"])
        self.assertFalse(self.out.exists())

    # --- texts and tokens -------------------------------------------------------------------------

    def test_text_shorter_than_a_window(self):
        text = self.dir / "short.txt"
        text.write_text("Hello, world.\n")
        self.refused(bt.BAD_INPUT, "--seqlen", "64", needles=["64"], calib=text)
        self.fails(bt.BAD_INPUT, "eval", "--model", self.model, "--ppl", text, "--seqlen", "64",
                   needles=["64"])

    def test_text_that_is_none(self):
        text = self.dir / "text.txt"
        self.refused(bt.BAD_INPUT, needles=["text.txt"], calib=text)
        text.write_text("")
        self.refused(bt.BAD_INPUT, needles=["text.txt"], calib=text)
        self.refused(bt.BAD_INPUT, needles=[str(self.model)], calib=self.model)

    def test_data_set_that_is_not_here(self):
        self.refused(bt.BAD_INPUT, needles=["wikitext2"], calib="wikitext2")
        self.refused(bt.BAD_INPUT, needles=["c4"], calib="c4")

    def test_model_without_tokenizer(self):
        text = self.dir / "text.txt"
        text.write_text("words " * 200)
        (self.model / "tokenizer.json").write_text("{}")
        self.refused(bt.BAD_INPUT, "--seqlen", "64", needles=["tokenizer.json"], calib=text)
        (self.model / "tokenizer.json").unlink()
        self.refused(bt.BAD_INPUT, "--seqlen", "64", needles=["tokenizer"], calib=text)

    def test_npy(self):
        good = np.load(self.tokens)
        path = self.dir / "bad.npy"
        arrays = {"float": good.astype(np.float32), "int16": good.astype(np.int16),
                  "cube": good[None], "empty": good[:0], "narrow": good[:, :1],
                  "fortran": np.asfortranarray(good), "big endian": good.astype(">i4"),
                  "negative": -1 - good, "vocabulary": good + 300,
                  "object": np.array([[None, 1]], dtype=object)}
        for name, array in arrays.items():
            self.forget()
            with self.subTest(name=name):
                np.save(path, array, allow_pickle=True)
                needle = "vocabulary" if name == "vocabulary" else "bad.npy"
                self.refused(bt.BAD_INPUT, needles=[needle], calib=path)

    def test_npy_that_is_damaged(self):
        raw = self.tokens.read_bytes()
        path = self.dir / "bad.npy"
        for damaged in (b"", raw[:5], raw[:20], raw[:-1], raw + b"\0", b"PK" + raw[2:],
                        raw.replace(b"(2, 64)", b"(2, -4)"), raw.replace(b"(2, 64)", b"(9, 99)"),
                        raw[:8] + b"\xff\xff" + raw[10:]):
            with self.subTest(size=len(damaged)):
                path.write_bytes(damaged)
                self.refused(bt.BAD_INPUT, needles=["bad.npy"], calib=path)

    def test_kl_to_another_vocabulary(self):
        other = bt.make_tiny_llama(self.dir / "other", vocab=400)
        self.fails(bt.BAD_INPUT, "eval", "--model", self.model, "--ppl", self.tokens, "--kl", other,
                   needles=["vocab_size"])


if __name__ == "__main__":
    bt.main()
