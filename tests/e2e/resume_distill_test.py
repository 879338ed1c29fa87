"""A killed distillation goes on with --resume, to the same bytes.

The run is killed with SIGKILL as soon as a step has been stored, and at random moments.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

STEPS = 12


class ResumeDistill(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model", blocks=3, hidden=96, intermediate=160)
        self.tokens = self.calibration(rows=4, length=128)
        self.packed = self.dir / "packed"
        self.billm("quantize", "--quiet", "--model", self.model, "--calib", self.tokens, "--method",
                   "billm", "--block-size", "32", "--out", self.packed)
        self.out = self.dir / "out"
        self.partial = self.dir / "out.partial"

    def arguments(self, *more, out=None, steps=STEPS):
        return ("distill", "--model", self.packed, "--original", self.model, "--calib", self.tokens,
                "--steps", steps, "--window", "64", "--code-rate", "0.01", "--threads", "2", "--out",
                out or self.out, *more)

    def stored_step(self):
        try:
            name = json.loads((self.partial / "journal.json").read_text())["training"]["name"]
        except FileNotFoundError:
            return 0
        return int(name.removeprefix("training-").removesuffix(".safetensors"))

    def kill(self, when, *more):
        process = subprocess.Popen([bt.binary(), *map(str, self.arguments("--quiet", *more))],
                                   env=self.environment())
        try:
            while not when() and process.poll() is None:
                time.sleep(0.001)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def test_killed_and_resumed(self):
        self.billm(*self.arguments("--quiet", out=self.dir / "whole"))
        expected = bt.digests(self.dir / "whole")
        self.kill(lambda: self.stored_step() >= 1)
        reached = self.stored_step()
        self.assertGreaterEqual(reached, 1)
        # Other settings do not go on, and nothing is lost by asking.
        self.fails(bt.USAGE, *self.arguments("--resume", steps=STEPS + 1),
                   needles=["--resume", "steps was"])
        self.fails(bt.USAGE, *self.arguments(), needles=["unfinished run", "--resume"])
        self.kill(lambda: self.stored_step() > reached, "--resume")
        later = self.stored_step()
        self.assertGreaterEqual(later, reached)
        report = self.report(*self.arguments("--resume"))
        self.assertEqual(report["resumed_step"], later)
        self.assertEqual(len(report["losses"]), STEPS)
        self.assertEqual(bt.digests(self.out), expected)
        self.assertFalse(self.partial.exists())

    def test_killed_at_random_moments(self):
        started = time.monotonic()
        self.billm(*self.arguments("--quiet", out=self.dir / "whole"))
        seconds = time.monotonic() - started
        expected = bt.digests(self.dir / "whole")
        generator = random.Random(5)
        for _ in range(4):
            end = time.monotonic() + generator.uniform(0.2, 0.9) * seconds
            self.kill(lambda: time.monotonic() > end or self.out.exists(), "--resume")
            if self.out.exists():
                break
        if not self.out.exists():
            self.billm(*self.arguments("--quiet", "--resume"))
        made = bt.digests(self.out)
        # Killed between the result's arrival and the journal's removal; nothing reads it there.
        made.pop("journal.json", None)
        self.assertEqual(made, expected)

    def test_a_damaged_state_is_refused(self):
        self.kill(lambda: self.stored_step() >= 1)
        name = f"training-{self.stored_step()}.safetensors"
        kept = self.dir / "kept"
        shutil.copytree(self.partial, kept)
        data = bytearray((self.partial / name).read_bytes())
        data[-1] ^= 1
        (self.partial / name).write_bytes(data)
        self.fails(bt.BAD_INPUT, *self.arguments("--resume"), needles=[name, "--overwrite"])
        # A state that is gone: from the first step, with a warning.
        (self.partial / name).unlink()
        result = self.billm(*self.arguments("--resume"))
        self.assertIn("starting from the first", result.stderr)


if __name__ == "__main__":
    bt.main()
