"""A killed run goes on with --resume: nothing finished is done again, and the bytes are the same.

The run is killed with SIGKILL right after each block has been recorded, and at random moments.
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

BLOCKS = 6


class Resume(bt.SharedTestCase):
    METHOD = ("--method", "stbllm", "--nm-alloc", "adaptive", "--block-size", "32")
    # Flags that a resumed run may not change, and what it says then.
    CHANGES = {("--block-size", "64"): "block_size was 32, is 64",
               ("--nm", "5:8"): 'nm was "4:8", is "5:8"',
               ("--nm-alloc", "uniform"): 'nm_alloc was "adaptive", is "uniform"',
               ("--refine", "1"): "refine_rounds was 4, is 1",
               ("--seed", "7"): "seed was 0, is 7"}

    def setUp(self):
        super().setUp()
        # Large enough that a block takes longer than it takes to notice and kill.
        self.model = bt.make_tiny_llama(self.dir / "model", blocks=BLOCKS, hidden=128,
                                        intermediate=320)
        self.tokens = self.calibration(rows=4, length=128)
        self.out = self.dir / "out"
        self.partial = self.dir / "out.partial"

    def arguments(self, *more, out=None):
        return ("quantize", "--model", self.model, "--calib", self.tokens, *self.METHOD,
                "--threads", "2", "--out", out or self.out, *more)

    def uninterrupted(self):
        """The digests of the result of the same command, made once for all cases of a class, whose models
        and texts are the same."""
        out = self.maker.dir / "uninterrupted"
        if not out.exists():
            started = time.monotonic()
            self.billm(*self.arguments("--quiet", out=out))
            type(self).length = time.monotonic() - started
        return bt.digests(out)

    def journal(self):
        """What the unfinished run has recorded, or None."""
        try:
            return json.loads((self.partial / "journal.json").read_text())
        except FileNotFoundError:
            return None

    def finished_blocks(self):
        journal = self.journal()
        return len(journal["blocks"]) if journal else 0

    def kill_after(self, blocks, *more):
        """Runs until `blocks` blocks are recorded, then kills; the number of finished blocks."""
        process = subprocess.Popen([bt.binary(), *map(str, self.arguments("--quiet", *more))],
                                   env=self.environment())
        try:
            while self.finished_blocks() < blocks:
                self.assertIsNone(process.poll(), "ended before it could be killed")
                time.sleep(0.001)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.assertFalse(self.out.exists(), "the result was there before it was whole")
        return self.finished_blocks()

    def shards(self):
        """{name: (time of the last change, inode)} of the shards of finished blocks."""
        names = [block["shard"]["name"] for block in self.journal()["blocks"]]
        stats = {name: (self.partial / name).stat() for name in names}
        return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in stats.items()}

    def test_killed_after_each_block(self):
        expected = self.uninterrupted()
        reached = 0
        for blocks in range(1, BLOCKS - 1):
            if blocks <= reached:
                continue
            before = self.shards() if reached else {}
            reached = self.kill_after(blocks, *(["--resume"] if reached else []))
            after = self.shards()
            for name, stat in before.items():
                self.assertEqual(after[name], stat, f"{name} was written again")
        self.assertGreaterEqual(reached, 2)
        before = self.shards()
        report = self.report(*self.arguments("--resume"))
        self.assertEqual(report["resumed_blocks"], reached)
        self.assertEqual(report["blocks"], BLOCKS)
        self.assertEqual(len(report["layers"]), 7 * BLOCKS)
        for name, (changed, inode) in before.items():
            stat = (self.out / name).stat()
            self.assertEqual((stat.st_mtime_ns, stat.st_ino), (changed, inode), name)
        self.assertEqual(bt.digests(self.out), expected)
        self.assertEqual(sorted(p.name for p in self.dir.glob("out*")), ["out"])
        self.billm("eval", "--ppl", self.tokens, "--model", self.out, "--quiet")

    def test_killed_between_the_last_block_and_the_rename(self):
        # Made by hand, for the moment is short: a whole result, still called partial, its journal.
        expected = self.uninterrupted()
        self.kill_after(1)
        journal = self.journal()
        shutil.rmtree(self.partial)
        shutil.copytree(self.maker.dir / "uninterrupted", self.partial)
        manifest = json.loads((self.partial / "manifest.json").read_text())
        for block in range(1, BLOCKS):
            name = f"model-{block + 1:05}-of-{BLOCKS + 1:05}.safetensors"
            layers = [layer for layer in manifest["layers"] if f"layers.{block}." in layer["name"]]
            journal["blocks"].append({"shard": {"name": name} | manifest["files"][name],
                                      "layers": layers})
        journal["hidden"] = []
        (self.partial / "journal.json").write_text(json.dumps(journal))
        (self.partial / "model-00003-of-00007.safetensors.tmp").write_text("left by a killed run")
        report = self.report(*self.arguments("--resume"))
        self.assertEqual(report["resumed_blocks"], BLOCKS)
        self.assertEqual(bt.digests(self.out), expected)

    def test_killed_at_random_moments(self):
        expected = self.uninterrupted()
        random.seed(4)
        for _ in range(6):
            if self.out.exists():
                break
            command = [bt.binary(), *map(str, self.arguments("--quiet", "--resume"))]
            process = subprocess.Popen(command, env=self.environment())
            time.sleep(self.length * random.uniform(0.5, 0.9))
            process.send_signal(signal.SIGKILL)
            process.wait()
        if not self.out.exists():
            self.billm(*self.arguments("--quiet", "--resume"))
        # Left where the last kill came right after the rename; nothing reads it there.
        (self.out / "journal.json").unlink(missing_ok=True)
        self.assertEqual(bt.digests(self.out), expected)

    def test_changed_settings_are_refused(self):
        self.kill_after(2)
        tokens, kept = self.calibration(seed=9), bt.digests(self.partial)
        changes = self.CHANGES | {("--calib", tokens): "calibration_digest was"}
        for change, needle in changes.items():
            with self.subTest(change=change):
                # The changed flag takes the place of the first one.
                arguments = [str(a) for a in self.arguments("--resume")]
                if change[0] in arguments:
                    place = arguments.index(change[0])
                    del arguments[place : place + 2]
                self.fails(bt.USAGE, *arguments, *change, needles=("--resume", needle))
        self.assertEqual(bt.digests(self.partial), kept)

    def test_a_changed_model_is_refused(self):
        self.kill_after(1)
        header, data = bt.read_parts(self.model / "model.safetensors")
        damaged = bytearray(data)
        damaged[header["model.layers.3.mlp.up_proj.weight"]["data_offsets"][1] - 2] ^= 1
        bt.write_parts(self.model / "model.safetensors", header, bytes(damaged))
        self.fails(bt.USAGE, *self.arguments("--resume"), needles=["model_digest was"])

    def test_other_threads_are_no_change(self):
        expected = self.uninterrupted()
        self.kill_after(2)
        arguments = [str(a) for a in self.arguments("--quiet", "--resume")]
        arguments[arguments.index("--threads") + 1] = "3"
        self.billm(*arguments)
        self.assertEqual(bt.digests(self.out), expected)

    def test_damaged_partial_files_are_refused(self):
        self.kill_after(2)
        journal = self.journal()
        name = journal["blocks"][0]["shard"]["name"]
        path = self.partial / name
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        self.fails(bt.BAD_INPUT, *self.arguments("--resume"), needles=[name, "--overwrite"])
        path.unlink()
        self.fails(bt.BAD_INPUT, *self.arguments("--resume"), needles=[name])
        path.write_bytes(good)
        path = self.partial / "journal.json"
        good = path.read_text()
        for text in ("", "{", "[]", "{}", good.replace('"blocks"', '"flocks"'),
                     good.replace('"shape"', '"shapes"'), good.replace('"bytes": ', '"bytes": "x')):
            with self.subTest(journal=text[:20]):
                path.write_text(text)
                self.fails(bt.BAD_INPUT, *self.arguments("--resume"), needles=["journal.json"])
        path.write_text(good)
        self.billm(*self.arguments("--quiet", "--resume"))
        self.assertEqual(bt.digests(self.out), self.uninterrupted())

    def test_lost_hidden_states_are_computed_again(self):
        """As after a power cut: they are not forced to the disk."""
        expected = self.uninterrupted()
        for damage in ("changed", "cut", "gone"):
            with self.subTest(damage=damage):
                self.kill_after(2)
                blocks = self.finished_blocks()
                path = self.partial / self.journal()["hidden"][-1]["name"]
                good = path.read_bytes()
                path.unlink()
                if damage != "gone":
                    path.write_bytes(good[:-1] + (b"" if damage == "cut" else b"x"))
                result = self.billm(*self.arguments("--quiet", "--resume"))
                self.assertIn(f"from the {blocks} finished blocks", result.stderr)
                self.assertEqual(bt.digests(self.out), expected)
                shutil.rmtree(self.out)

    def test_hidden_states_of_an_earlier_block(self):
        """They are stored now and then only, where that takes long."""
        expected = self.uninterrupted()
        self.kill_after(1)
        earlier = self.journal()
        kept = {file["name"]: (self.partial / file["name"]).read_bytes()
                for file in earlier["hidden"]}
        self.kill_after(len(earlier["blocks"]) + 1, "--resume")
        journal = self.journal()
        for file in journal["hidden"]:
            (self.partial / file["name"]).unlink()
        for name, data in kept.items():
            (self.partial / name).write_bytes(data)
        journal |= {key: earlier[key] for key in ("hidden", "hidden_block")}
        self.assertLess(journal["hidden_block"], len(journal["blocks"]))
        (self.partial / "journal.json").write_text(json.dumps(journal))
        result = self.billm(*self.arguments("--quiet", "--resume"))
        self.assertEqual(result.stderr, "")
        self.assertEqual(bt.digests(self.out), expected)

    def test_hidden_states_on_disk(self):
        """So many processes share the memory that no state has room in this one's part of it."""
        expected = self.uninterrupted()
        self.assertEqual(self.report(*self.arguments("--dry-run"))["hidden_place"], "memory")
        environment = self.environment()
        self.environment = lambda: environment | {"LOCAL_WORLD_SIZE": "65536"}
        report = self.report(*self.arguments())
        self.assertEqual(report["hidden_place"], "disk")
        self.assertEqual(bt.digests(self.out), expected)
        shutil.rmtree(self.out)
        self.kill_after(2)
        reached = self.finished_blocks()
        self.environment = lambda: environment  # goes on in memory
        report = self.report(*self.arguments("--resume"))
        self.assertEqual((report["resumed_blocks"], report["hidden_place"]), (reached, "memory"))
        self.assertEqual(bt.digests(self.out), expected)
        shutil.rmtree(self.out)
        self.kill_after(2)
        for file in self.journal()["hidden"]:
            (self.partial / file["name"]).unlink()
        self.environment = lambda: environment | {"LOCAL_WORLD_SIZE": "65536"}
        self.assertEqual(self.report(*self.arguments("--resume"))["hidden_place"], "disk")
        self.assertEqual(bt.digests(self.out), expected)

    def test_without_resume_an_unfinished_run_is_not_touched(self):
        self.kill_after(2)
        before = bt.digests(self.partial)
        self.fails(bt.USAGE, *self.arguments(), needles=["unfinished", "--resume", "--overwrite"])
        self.assertEqual(bt.digests(self.partial), before)
        report = self.report(*self.arguments("--overwrite"))
        self.assertEqual(report["resumed_blocks"], 0)
        self.assertEqual(bt.digests(self.out), self.uninterrupted())

    def test_nothing_to_resume(self):
        # With --out: the same command line serves the first run and every further one.
        self.assertEqual(self.report(*self.arguments("--resume"))["resumed_blocks"], 0)
        self.fails(bt.USAGE, *self.arguments("--resume"), needles=["exists already"])
        # Without: there must be something to go on with.
        arguments = ("quantize", "--model", self.model, "--calib", self.tokens, "--method", "rtn")
        self.fails(bt.USAGE, *arguments, "--resume", needles=["--resume", "no unfinished run"])

    def test_resume_without_out(self):
        arguments = ("quantize", "--model", self.model, "--calib", self.tokens)
        self.partial = self.home / "results" / "model-billm.partial"
        process = subprocess.Popen([bt.binary(), *map(str, arguments), "--quiet"],
                                   env=self.environment())
        while self.finished_blocks() < 1:
            self.assertIsNone(process.poll(), "ended before it could be killed")
        process.kill()
        process.wait()
        report = self.report(*arguments, "--resume")
        self.assertGreaterEqual(report["resumed_blocks"], 1)
        self.assertEqual(Path(report["output"]), self.home / "results" / "model-billm")


class ResumeTuned(Resume):
    """The same with tuned blocks: both streams of hidden states come back, and the norms."""

    def arguments(self, *more, out=None):
        return super().arguments("--tune", "--tune-steps", "8", "--tune-window", "64", *more,
                                 out=out)


class ResumeRotated(Resume):
    METHOD = ("--method", "arb", "--rotate", "both", "--rotate-seed", "3")
    CHANGES = {("--rotate", "in"): 'rotate was "both", is "in"',
               ("--rotate-seed", "4"): "rotate_seed was 3, is 4",
               ("--classes", "1"): "classes was 2, is 1"}


class ResumeCorrected(Resume):
    """Corrected targets: the original's stream of hidden states comes back, too."""

    METHOD = ("--method", "gptq", "--targets", "corrected", "--sink-weight", "4")
    CHANGES = {("--targets", "own"): 'targets was "corrected", is "own"',
               ("--target-share", "0.25"): "target_share was 0.5, is 0.25",
               ("--sink-weight", "5"): "sink_weight was 4, is 5"}


class ResumeSequentialTuned(ResumeTuned):
    """Tuning changes linears that calibration has passed: then it goes on from the block's inputs, as
    it does where no points are kept, on disk."""

    METHOD = (*Resume.METHOD, "--sequential")


class ResumeFactors(Resume):
    """Binary factors, whose ranks follow from a plan for the whole model."""

    METHOD = ("--method", "dbf", "--bits", "0.9")
    CHANGES = {("--bits", "0.8"): "bits was 0.9, is 0.8",
               ("--damping", "0.02"): "damping was 0.01, is 0.02"}

    def test_another_kind_of_cpu_is_refused(self):
        """Its dense algebra rounds otherwise, and a result of both would be that of neither."""
        self.kill_after(2)
        kept = bt.digests(self.partial)
        self.fails(bt.USAGE, *self.arguments("--resume"), variables={"BILLM_CPU_TARGET": "SCALAR"},
                   needles=["--resume", "cpu was", "is \"baseline, caches of"])
        self.assertEqual(bt.digests(self.partial), kept)


# What does not depend on the method is tested once.
KEPT = {ResumeTuned: ("test_killed_after_each_block", "test_changed_settings_are_refused",
                      "test_lost_hidden_states_are_computed_again", "test_hidden_states_on_disk",
                      "test_hidden_states_of_an_earlier_block"),
        ResumeRotated: ("test_killed_after_each_block", "test_changed_settings_are_refused"),
        ResumeCorrected: ("test_killed_after_each_block", "test_changed_settings_are_refused",
                          "test_lost_hidden_states_are_computed_again",
                          "test_hidden_states_on_disk"),
        ResumeSequentialTuned: ("test_hidden_states_on_disk",),
        ResumeFactors: ("test_killed_after_each_block", "test_changed_settings_are_refused")}
for case, kept in KEPT.items():
    for name in [name for name in dir(Resume) if name.startswith("test_") and name not in kept]:
        setattr(case, name, None)
del case  # or its tests would be found by this name, too


if __name__ == "__main__":
    bt.main()
