"""--target-bits: rates that differ, of so many stored bits in the mean; the same bytes at any number of
threads and after an interruption in any of its stages; what is refused."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

BLOCKS = 4
TARGET = 1.4


class TargetBits(bt.SharedTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = bt.make_tiny_llama(cls.maker.dir / "model", hidden=64, intermediate=192,
                                       blocks=BLOCKS)
        cls.tokens = cls.maker.calibration(rows=4, length=96)
        cls.result = cls.maker.dir / "result"
        cls.made = cls.maker.report(*cls.command(cls.result), "--threads", 1)

    @classmethod
    def command(cls, out, *more, method=("--method", "trellis"), target=TARGET):
        return ("quantize", "--model", cls.model, "--calib", cls.tokens, "--out", out, *method,
                "--target-bits", target, *more)

    def test_the_bits_and_where_they_are(self):
        manifest = json.loads((self.result / "manifest.json").read_text())
        layers, plan = self.made["layers"], self.made["plan"]
        self.assertEqual(manifest["plan"], plan)
        self.assertEqual(manifest["settings"]["target_bits"], TARGET)
        self.assertEqual(manifest["settings"]["bits"], 1.25)  # that of the uniform result
        weights = np.array([np.prod(layer["shape"]) for layer in layers])
        bits = np.array([plan[layer["name"]]["bits"] for layer in layers])
        for layer, rate in zip(layers, bits):
            self.assertEqual(layer["nominal_bits"], rate)
        self.assertLessEqual(self.made["stored_bits"], TARGET)
        # A step of the smallest layer that is not at the top would have been too much.
        below = weights[bits < 2.25].min()
        self.assertGreater(self.made["stored_bits"] + 0.26 * below / weights.sum(), TARGET)
        self.assertEqual((bits.min(), len(set(bits)) > 2), (1.0, True))
        self.assertLessEqual(bits.max(), 2.25)
        self.assertEqual([path.name for path in self.result.iterdir() if path.is_dir()], [])
        seconds = self.made["seconds"]
        self.assertGreater(seconds["plan"], 0)
        self.assertLess(seconds["plan"], seconds["total"])
        # As a text, with a row for each kind of linear.
        out = self.dir / "text"
        text = self.billm(*self.command(out, "--threads", 2)).stdout
        self.assertEqual(bt.digests(out), bt.digests(self.result))
        for kind in bt.linear_shapes(bt.tiny_config()):
            self.assertIn(f"bits          {kind.split('.')[-1]:<9} ", text)
        self.assertIn("planning ", text)

    def test_its_plan_given_as_a_file(self):
        plan, out = self.dir / "plan.json", self.dir / "out"
        plan.write_text(json.dumps(self.made["plan"]))
        self.billm("quantize", "--model", self.model, "--calib", self.tokens, "--out", out,
                   "--method", "trellis", "--plan", plan, "--quiet")
        before, after = bt.digests(self.result), bt.digests(out)
        self.assertEqual([name for name in before if before[name] != after[name]],
                         [name for name in before if name.startswith("manifest.")])

    def test_layers_that_a_plan_has_already(self):
        plan, out = self.dir / "plan.json", self.dir / "out"
        plan.write_text(json.dumps({"*.layers.0.*": {"bits": 1}, "*.layers.1.mlp.*": {"sweeps": 1},
                                    "*.layers.3.self_attn.*": {"method": "gptq", "bits": 2}}))
        report = self.report(*self.command(out, "--plan", plan, target=1.9))
        self.assertLessEqual(report["stored_bits"], 1.9)
        self.assertGreater(report["stored_bits"], 1.85)
        for name, own in report["plan"].items():
            if ".layers.0." in name:
                self.assertEqual(own, {"bits": 1})
            elif ".layers.1.mlp." in name:
                self.assertEqual(own["sweeps"], 1)
            elif ".layers.3.self_attn." in name:
                self.assertEqual(own["method"], "gptq")
            self.assertIn("bits", own)

    def test_other_methods(self):
        for method, target in (("gptq", 2.6), ("dbf", 1.1), ("rtn", 3.2)):
            with self.subTest(method=method):
                report = self.report(*self.command(self.dir / method, target=target,
                                                   method=("--method", method)))
                self.assertLessEqual(report["stored_bits"], target)
                self.assertGreater(report["stored_bits"], target - 0.1)
                self.assertGreater(len({own["bits"] for own in report["plan"].values()}), 1)

    def kill_when(self, out, condition):
        """False if it ended before it could be killed."""
        process = subprocess.Popen([bt.binary(), *map(str, self.command(out)), "--quiet"],
                                   env=self.environment())
        try:
            while not condition():
                if process.poll() is not None:
                    return False
                time.sleep(0.0005)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return not out.exists()

    def test_killed_and_resumed(self):
        def blocks_in(path):
            try:
                return len(json.loads(path.read_text())["blocks"])
            except FileNotFoundError:
                return 0

        def stages(partial):
            return {"in the uniform run":
                        lambda: blocks_in(partial / "uniform.partial" / "journal.json") >= 2,
                    "when it is whole": lambda: (partial / "uniform").is_dir(),
                    "in the run itself": lambda: blocks_in(partial / "journal.json") >= 1}

        killed = 0
        for number, stage in enumerate(stages(self.dir)):
            with self.subTest(stage=stage):
                out = self.dir / str(number)
                partial = self.dir / f"{number}.partial"
                if not self.kill_when(out, stages(partial)[stage]):
                    continue
                killed += 1
                self.fails(bt.USAGE, *self.command(out, target=1.45), "--resume",
                           needles=["target_bits was 1.4, is 1.45"])
                if stage == "in the run itself":  # as if killed while it goes at the end
                    (partial / "uniform" / "config.json").unlink()
                self.billm(*self.command(out), "--resume", "--quiet")
                self.assertEqual(bt.digests(out), bt.digests(self.result))
                self.assertFalse(partial.exists())
        self.assertGreater(killed, 1)

    def test_two_processes(self):
        out = self.dir / "two"
        for status, _, err in self.finish(self.group(2, *self.command(out, "--threads", 1),
                                                     "--quiet")):
            self.assertEqual(status, 0, err)
        self.assertEqual(bt.digests(out), bt.digests(self.result))

    def test_dry_run(self):
        estimate = self.report(*self.command(self.dir / "none"), "--dry-run")
        self.assertAlmostEqual(estimate["stored_bits"], TARGET, places=3)
        self.assertGreater(estimate["seconds"]["plan"], 0)
        self.assertIn("plan ", self.billm(*self.command(self.dir / "none"), "--dry-run").stdout)

    def test_refused(self):
        out = self.dir / "none"
        for needle, command in (
                ("cannot go with --bits", self.command(out, "--bits", 1)),
                ("--method billm has no rates", self.command(out, method=("--method", "billm"))),
                ("--target-bits 0.1: expected 0.25..3", self.command(out, target=0.1)),
                ("--target-bits 5: expected 0.25..3", self.command(out, target=5)),
                ("--target-bits nan", self.command(out, target="nan"))):
            for more in ((), ("--dry-run",)):
                with self.subTest(needle=needle, more=more):
                    self.fails(bt.USAGE, *command, *more, needles=[needle])
        plan = self.dir / "plan.json"
        plan.write_text('{"*": {"bits": 1}}')
        self.fails(bt.USAGE, *self.command(out, "--plan", plan), needles=["bits of every layer"])
        plan.write_text('{"*.layers.0.*": {"bits": 16}}')
        for more in ((), ("--dry-run",)):
            self.fails(bt.USAGE, *self.command(out, "--plan", plan), *more,
                       needles=["--target-bits 1.4: expected "])
        self.fails(bt.USAGE, *self.command(out, target="many"), needles=["--target-bits"])
        # The scales of so small a model take more than the target leaves.
        self.fails(bt.USAGE, *self.command(out, target=0.25), needles=["--target-bits 0.25: expected ", "lowest to the highest rates"])


if __name__ == "__main__":
    bt.main()
