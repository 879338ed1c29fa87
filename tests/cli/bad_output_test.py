"""Outputs that cannot be written or must not be: one clear line, the right exit code, nothing touched."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt
import usage_testing


class BadOutput(usage_testing.UsageTestCase):
    def test_existing_out(self):
        self.billm(*self.arguments("--quiet"))
        before = bt.digests(self.out)
        self.fails(bt.USAGE, *self.arguments(), needles=["out", "exists already", "--overwrite"])
        self.fails(bt.USAGE, "export", "--dense", "--out", self.out, "--model", self.out,
                   needles=["exists already", "--overwrite"])
        self.assertEqual(bt.digests(self.out), before)
        # A run that fails leaves the old result, with --overwrite too.
        self.fails(bt.BAD_INPUT, *self.arguments("--overwrite", calib=self.dir / "none.npy"))
        (self.model / "model.safetensors").rename(self.model / "away")
        self.fails(bt.BAD_INPUT, *self.arguments("--overwrite"))
        (self.model / "away").rename(self.model / "model.safetensors")
        self.assertEqual(bt.digests(self.out), before)
        self.billm(*self.arguments("--quiet", "--overwrite", method="billm"))
        self.assertNotEqual(bt.digests(self.out), before)
        self.assertEqual([p.name for p in self.dir.glob("out*")], ["out"])

    def test_overwrite_replaces_models_only(self):
        precious = self.dir / "precious"
        precious.mkdir()
        (precious / "diary.txt").write_text("dear diary")
        self.fails(bt.USAGE, *self.arguments("--overwrite", out=precious), needles=["precious"])
        self.fails(bt.USAGE, *self.arguments("--overwrite", out=self.tokens),
                   needles=[self.tokens.name])
        self.fails(bt.USAGE, *self.arguments("--overwrite", out=self.model), needles=["--out"])
        self.fails(bt.USAGE, *self.arguments("--overwrite", out=self.dir), needles=["--out"])
        self.assertTrue((precious / "diary.txt").exists() and self.tokens.is_file())
        self.assertTrue((self.model / "model.safetensors").exists())
        for neighbour in ("precious.old", "out.old"):  # names a rename might want
            (self.dir / neighbour).mkdir()
        self.billm(*self.arguments("--quiet"))
        self.billm(*self.arguments("--quiet", "--overwrite"))
        self.assertTrue((self.dir / "out.old").is_dir())

    def test_unwritable_out(self):
        self.refused(bt.FAILURE, needles=["/proc/out"], out="/proc/out")
        self.refused(bt.FAILURE, needles=["tokens"], out=self.tokens / "below" / "a-file")
        closed = self.dir / "closed"
        closed.mkdir(mode=0o500)
        if os.geteuid() != 0:  # root may write anywhere
            self.refused(bt.FAILURE, needles=["closed"], out=closed / "out")

    def test_unwritable_home(self):
        self.home.write_text("not a directory")
        result = self.run_billm("quantize", "--model", self.model, "--method", "rtn", "--calib",
                                self.tokens, "--quiet")
        self.assert_error(result, "quantize", bt.FAILURE, str(self.home))

    def test_json_into_a_missing_directory(self):
        report = self.dir / "missing" / "report.json"
        self.refused(bt.FAILURE, "--json", report, needles=["--json", "missing"])
        for command in (("eval", "--model", self.model, "--ppl", self.tokens),
                        ("inspect", self.model), ("generate", "-m", self.model, "-p", "x"),
                        ("tokenize", "--model", self.model, "x"),
                        ("export", "--dense", "--model", self.model, "--out", self.out)):
            self.fails(bt.FAILURE, *command, "--json", report, needles=["--json", "missing"])

    def test_file_size_limit(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))

        self.refused(bt.FAILURE, needles=["out.partial", "cannot write"], preexec_fn=limit)

    def test_unwritable_stdout(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        for command in (("--version",), ("--help",), ("quantize", "--help"),
                        ("eval", "--model", self.model, "--ppl", self.tokens, "--json", "-"),
                        ("eval", "--model", self.model, "--ppl", self.tokens),
                        ("generate", "--model", self.model, "-p", "x", "-n", 3),
                        ("generate", "--model", self.model, "-p", "x", "-n", 3, "--json", "-"),
                        ("tokenize", "--model", self.model, "x" * 3_000),
                        ("tokenize", "--model", self.model, "--json", "-", "x" * 100_000)):
            with self.subTest(command=command), open("/dev/full", "w") as full:
                result = subprocess.run([bt.binary(), *map(str, command)], stdout=full,
                                        stderr=subprocess.PIPE, text=True, timeout=60,
                                        env=self.environment())
                self.assertEqual(result.returncode, bt.FAILURE)
                self.assertEqual(result.stderr.count("error: standard output: cannot write: "
                                                     "No space left on device\n"), 1, result)

    def test_closed_stdout(self):
        for command in ("--version", "--help", f"tokenize --model {self.model} x",
                        f"tokenize --model {self.model} x --json -"):
            with self.subTest(command=command):
                result = subprocess.run(["sh", "-c", f"exec {bt.binary()} {command} >&-"],
                                        capture_output=True, text=True, timeout=60,
                                        env=self.environment())
                self.assertEqual(result.returncode, bt.FAILURE, result)
                self.assertIn("error: standard output: cannot write: Bad file", result.stderr)
        # Nothing else takes its place.
        out = self.dir / "result"
        command = (f"exec {bt.binary()} quantize --model {self.model} --calib {self.tokens} "
                   f"--method rtn --out {out} --json - >&-")
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60,
                                env=self.environment())
        self.assertEqual(result.returncode, bt.FAILURE, result)
        self.billm("inspect", out)

    def test_threads_that_the_system_refuses(self):
        # A stack of 64 GB does not fit: one thread does the work, with the same result.
        def limit():
            resource.setrlimit(resource.RLIMIT_STACK, (64 << 30, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

        self.billm(*self.arguments("--quiet", "--threads", "16", method="billm"), preexec_fn=limit)
        self.billm(*self.arguments("--quiet", out=self.dir / "again", method="billm"))
        self.assertEqual(bt.digests(self.out), bt.digests(self.dir / "again"))

    def test_two_runs_on_the_same_out(self):
        model = bt.make_tiny_llama(self.dir / "slow", hidden=256, intermediate=640, blocks=4)
        arguments = ("quantize", "--model", model, "--method", "billm", "--calib", self.tokens,
                     "--out", self.out, "--quiet")
        first = self.start(*arguments)
        self.addCleanup(first.wait)
        self.addCleanup(first.kill)
        with contextlib.closing(first.stdout), contextlib.closing(first.stderr):
            while not (self.dir / "out.partial").exists():
                self.assertIsNone(first.poll(), "the first run was too fast")
            first.send_signal(signal.SIGSTOP)  # so that it cannot finish before the others
            for more in ((), ("--resume",), ("--overwrite",)):
                self.assert_error(self.run_billm(*arguments, *more), "quantize", bt.FAILURE,
                                  "another billm")
            first.send_signal(signal.SIGCONT)
            self.assertEqual(first.wait(120), 0, first.stderr.read())
        self.assertEqual(sorted(p.name for p in self.dir.glob("out*")), ["out"])
        self.billm("inspect", self.out)

    def test_quantizing_a_packed_model(self):
        self.billm(*self.arguments("--quiet"))
        self.fails(bt.BAD_INPUT, "quantize", "--model", self.out, "--calib", self.tokens, "--out",
                   self.dir / "twice", needles=["is quantized already"])
        self.fails(bt.BAD_INPUT, "export", "--dense", "--model", self.model, "--out",
                   self.dir / "twice", needles=["is not a packed model"])
        self.fails(bt.BAD_INPUT, "inspect", self.model, needles=["is not a packed model"])
        self.fails(bt.USAGE, "export", "--model", self.out, "--out", self.dir / "twice",
                   needles=["--dense"])
        self.assertEqual(list(self.dir.glob("twice*")), [])


if __name__ == "__main__":
    bt.main()
