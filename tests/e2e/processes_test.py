#!/usr/bin/env python3
"""Several processes quantize one model: the same bytes as one, whatever their number, for every kind
of method; started by torchrun and by hand; and what happens when one of them fails."""
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt  # noqa: E402

METHODS = (
    ["billm"],
    ["arb", "--block-size", 64],
    ["arb", "--rotate", "both", "--rotate-seed", 3],
    ["stbllm", "--nm", "4:8", "--nm-alloc", "adaptive"],
    ["pbllm"],
    ["gptq", "--rotate", "in"],
    ["rtn", "--targets", "corrected"],
    ["arb", "--targets", "corrected", "--sink-weight", "4"],
    ["dbf", "--bits", "0.7"],
    ["trellis", "--bits", "0.75"],
)
SEQUENCES = 11
BLOCKS = 3


class Processes(bt.TestCase):
    def setUp(self):
        super().setUp()
        # Rows of 192 and 320 are 3 and 5 tiles; 64 rows of k and v are one, which only one has.
        self.model = bt.make_tiny_llama(self.dir / "model", hidden=192, intermediate=320,
                                        blocks=BLOCKS, heads=6, kv_heads=2)
        self.tokens = self.calibration(rows=SEQUENCES, length=24)

    def arguments(self, out, *more, method="billm", tokens=None):
        return ["quantize", "--model", self.model, "--method", method, "--calib",
                tokens or self.tokens, "--out", self.dir / out, "--threads", 1, *more]

    def together(self, size, *arguments, **options):
        results = self.finish(self.group(size, *arguments, **options))
        for status, _, err in results:
            self.assertEqual(status, 0, err)
        return results

    def one(self, *more, **options):
        self.billm(*self.arguments("one", "--quiet", *more, **options))
        return bt.digests(self.dir / "one")

    def test_every_method(self):
        for method, *more in METHODS:
            with self.subTest(method=method, more=more):
                expected = self.one(*more, "--overwrite", method=method)
                self.together(2, *self.arguments("two", "--quiet", "--overwrite", *more,
                                                 method=method))
                self.assertEqual(bt.digests(self.dir / "two"), expected)

    def test_any_number_of_processes(self):
        expected = self.one("--sequential")
        for size in (2, 3):
            self.together(size, *self.arguments(f"many-{size}", "--quiet", "--sequential"))
            self.assertEqual(bt.digests(self.dir / f"many-{size}"), expected)

    def test_hidden_states_on_disk(self):
        """Each process has files of its own; so many of them share the memory that nothing fits."""
        more = ("--targets", "corrected", "--sink-weight", "4")
        expected = self.one(*more, method="rtn")
        environment = self.environment()
        self.environment = lambda: environment | {"LOCAL_WORLD_SIZE": "65536"}
        for size in (2, 3):
            self.together(size, *self.arguments(f"disk-{size}", "--quiet", *more, method="rtn"))
            self.assertEqual(bt.digests(self.dir / f"disk-{size}"), expected)

    def test_fewer_sequences_than_processes(self):
        tokens = self.calibration(rows=1, length=24)
        expected = self.one(tokens=tokens)
        self.together(3, *self.arguments("many", "--quiet", tokens=tokens))
        self.assertEqual(bt.digests(self.dir / "many"), expected)

    def test_only_the_first_reports(self):
        first, second = self.together(2, *self.arguments("two"))
        self.assertIn("stored bits", first[1])
        self.assertIn("quantize 3/3", first[2])
        self.assertEqual(second[1], "")
        self.assertRegex(second[2], r"^billm: info: process 1 of 2, meeting the others at [^\n]*\n$")
        self.assertEqual((self.home / "newest").resolve(), (self.dir / "two").resolve())

    def test_only_the_first_warns(self):
        self.model = bt.make_tiny_llama(self.dir / "small", hidden=16, intermediate=24, blocks=1,
                                        heads=2, kv_heads=1)
        first, second = self.together(2, *self.arguments("two", "--bits", 0.5, method="dbf"))
        self.assertIn("--bits 0.5 is less than the smallest factors", first[2])
        self.assertNotIn("warning", second[2])

    def test_torchrun(self):
        expected = self.one()
        torchrun = Path(bt.python()).parent / "torchrun"
        self.assertTrue(torchrun.exists(), f"no torchrun beside {bt.python()}")
        command = [bt.python(), torchrun, "--nproc-per-node", "2", "--master-port", bt.free_port(),
                   "--no-python", bt.binary(), *self.arguments("two", "--quiet")]
        result = subprocess.run(list(map(str, command)), env=self.environment(),
                                capture_output=True, text=True, timeout=240)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(bt.digests(self.dir / "two"), expected)

    def kill_after_a_block(self, rank):
        """Two processes, one of which is killed when a block is done; the other's result."""
        started = self.group(2, *self.arguments("two", "--quiet"))
        journal = self.dir / "two.partial" / "journal.json"
        while not journal.exists() and started[0].poll() is None:
            time.sleep(0.005)
        started[rank].send_signal(signal.SIGKILL)
        results = self.finish(started)
        self.assertEqual(results[rank][0], -signal.SIGKILL)
        return results[1 - rank]

    def test_a_killed_first_process_and_resume_with_another_number(self):
        expected = self.one()
        status, out, err = self.kill_after_a_block(0)
        self.assertEqual((status, out), (bt.FAILURE, ""), err)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertIn("billm quantize: error: 127.0.0.1:", err)
        partial = self.dir / "two.partial"
        hidden = json.loads((partial / "journal.json").read_text())["hidden"]
        # hidden-BLOCK-PROCESS-PART: of both processes.
        self.assertEqual({file["name"].split("-")[2] for file in hidden}, {"0", "1"})
        self.billm(*self.arguments("two", "--quiet", "--resume"))
        self.assertEqual(bt.digests(self.dir / "two"), expected)

    def test_a_killed_second_process_and_resume_together(self):
        expected = self.one()
        status, out, err = self.kill_after_a_block(1)
        self.assertEqual((status, out), (bt.FAILURE, ""), err)
        self.assertIn("has not been heard of", err)
        self.together(3, *self.arguments("two", "--quiet", "--resume"))
        self.assertEqual(bt.digests(self.dir / "two"), expected)

    def test_different_arguments(self):
        results = self.finish(self.group(2, *self.arguments("two", "--quiet"),
                                         each={1: ["--damping", "0.5"]}))
        self.assertEqual(results[1][0], bt.USAGE, results[1][2])
        self.assertIn("different models or settings", results[1][2])
        self.assertEqual(results[0][0], bt.FAILURE, results[0][2])
        self.assertIn("another process failed: the processes were given", results[0][2])
        self.assertFalse((self.dir / "two.partial").exists())
        self.assertFalse((self.dir / "two").exists())

    def test_an_error_of_the_first_reaches_all(self):
        (self.dir / "there").mkdir()
        results = self.finish(self.group(2, *self.arguments("there", "--quiet")))
        self.assertEqual(results[0][0], bt.USAGE, results[0][2])
        self.assertIn("exists already", results[0][2])
        self.assertEqual(results[1][0], bt.FAILURE, results[1][2])
        self.assertIn("another process failed", results[1][2])

    def test_tuning_is_refused(self):
        for status, _, err in self.finish(self.group(2, *self.arguments("two", "--tune"))):
            self.assertIn(status, (bt.USAGE, bt.FAILURE), err)
            self.assertIn("--tune: works in one process only", err)

    def test_wrong_variables(self):
        good = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
        for change, needle in (({"WORLD_SIZE": "two"}, "WORLD_SIZE: expected a number"),
                               ({"WORLD_SIZE": "0"}, "WORLD_SIZE: expected a number"),
                               ({"RANK": "2"}, "RANK: expected a number from 0 to 1"),
                               ({"RANK": ""}, "RANK: expected a number from 0 to 1"),
                               ({"MASTER_ADDR": ""}, "MASTER_ADDR: expected"),
                               ({"MASTER_PORT": "70000"}, "MASTER_PORT: expected")):
            with self.subTest(change=change):
                result = subprocess.run(
                    [bt.binary(), *map(str, self.arguments("two", "--quiet"))],
                    env=self.environment() | good | change, capture_output=True, text=True,
                    timeout=60)
                self.assert_error(result, "quantize", bt.USAGE, needle)

    def test_an_unknown_host(self):
        environment = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "no-such-host.invalid",
                       "MASTER_PORT": "29500"}
        result = subprocess.run([bt.binary(), *map(str, self.arguments("two", "--quiet"))],
                                env=self.environment() | environment, capture_output=True,
                                text=True, timeout=60)
        self.assert_error(result, "quantize", bt.FAILURE, "MASTER_ADDR: no-such-host.invalid")

    def test_a_world_of_one(self):
        expected = self.one()
        result = subprocess.run([bt.binary(), *map(str, self.arguments("two", "--quiet"))],
                                env=self.environment() | {"WORLD_SIZE": "1", "RANK": "0",
                                                          "LOCAL_RANK": "none"},
                                capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(bt.digests(self.dir / "two"), expected)


if __name__ == "__main__":
    bt.main()
