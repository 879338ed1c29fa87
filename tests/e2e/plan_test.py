"""--plan: layers with methods and bits of their own, and layers that stay as they are.

What the file holds, says and decodes to; the same bytes from the manifest's plan, at any number of
threads and after an interruption; tuned, distilled, run by generate; what is refused.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

sys.path.insert(0, str(bt.READ_PACKED.parent))
import read_packed

BLOCKS = 3
SIZES = dict(hidden=64, intermediate=192, blocks=BLOCKS)
LAYERS = "model.layers."
# In the file's order: what comes later holds.
PLAN = {"*": {"bits": 1},
        "*.mlp.down_proj": {"bits": 2},
        f"{LAYERS}1.*": {"method": "gptq", "bits": 3, "block_size": 32},
        f"{LAYERS}1.self_attn.[qk]_proj": {"method": "arb"},
        f"{LAYERS}1.mlp.up_proj": {"bits": 16},
        f"{LAYERS}2.*": {"bits": 16},
        f"{LAYERS}0.self_attn.o_proj": {"method": "dbf", "bits": 0.9}}
METHOD = ("--method", "trellis", "--bits", "1.5")


def planned(name):
    """(method, bits) of a layer, None if it stays."""
    block, module = int(name.split(".")[2]), name.split(".")[-1]
    if block == 2 or (block, module) == (1, "up_proj"):
        return None
    if block == 1:
        return ("arb", None) if module in ("q_proj", "k_proj") else ("gptq", 3)
    if module == "o_proj":
        return "dbf", 0.9
    return "trellis", 2 if module == "down_proj" else 1


class Plan(bt.SharedTestCase):
    """One result is made for the class, with one thread."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = bt.make_tiny_llama(cls.maker.dir / "model", **SIZES,
                                       change=lambda config, _: config.update(eos_token_id=None))
        cls.tokens = cls.maker.calibration(rows=4, length=96)
        cls.plan = cls.maker.dir / "mixed.json"
        cls.plan.write_text(json.dumps(PLAN))
        cls.result = cls.maker.dir / "result"
        cls.made = cls.maker.report(*cls.command(cls.result), "--threads", 1)
        cls.manifest = json.loads((cls.result / "manifest.json").read_text())

    @classmethod
    def command(cls, out, plan=None, method=METHOD):
        return ("quantize", "--model", cls.model, "--calib", cls.tokens, "--out", out, *method,
                "--plan", plan or cls.plan)

    def test_inspect_says_what_the_file_holds(self):
        stored, seen = bt.tensors(self.result), self.report("inspect", self.result)
        original = bt.tensors(self.model)
        text = self.billm("inspect", self.result).stdout.splitlines()
        total = weights = 0
        self.assertEqual(len(seen["layers"]), 7 * BLOCKS)
        for layer in seen["layers"]:
            name, (rows, cols) = layer["name"], layer["shape"]
            with self.subTest(layer=name):
                size = sum(len(data) for tensor, (data, _) in stored.items()
                           if tensor.startswith(name + "."))
                self.assertAlmostEqual(layer["stored_bits"], 8 * size / (rows * cols), places=12)
                total, weights = total + size, weights + rows * cols
                row = next(line for line in text if line.startswith(name + " "))
                plan = planned(name)
                if plan is None:
                    self.assertEqual(stored[name + ".weight"], original[name + ".weight"])
                    self.assertEqual((layer["error"], layer["factors"], layer["layout"]),
                                     (0, [], None))
                    self.assertEqual(self.manifest["plan"][name], {"bits": 16})
                    self.assertIn("as it is", row)
                    continue
                method, bits = plan
                self.assertEqual(row.split()[2], method)
                self.assertEqual(self.manifest["plan"][name].get("method", "trellis"), method)
                if method == "dbf":
                    self.assertLessEqual(layer["stored_bits"], bits)
                elif bits is not None:
                    self.assertEqual(layer["nominal_bits"], bits)
        for bits in (seen["totals"]["stored_bits"], self.made["stored_bits"],
                     self.manifest["stored_bits"],
                     self.report("eval", "--model", self.result, "--ppl", self.tokens)
                     ["stored_bits"]):
            self.assertAlmostEqual(bits, 8 * total / weights, places=12)
        config = json.loads((self.result / "config.json").read_text())["quantization_config"]
        self.assertEqual(sorted(config["modules_not_quantized"]),
                         sorted(["lm_head"] + [layer["name"] for layer in seen["layers"]
                                               if planned(layer["name"]) is None]))
        self.assertEqual(self.manifest["settings"]["plan"], PLAN)

    def test_export_and_perplexity(self):
        dense, windows = self.dir / "dense", self.calibration(rows=3, length=64, seed=5)
        self.billm("export", "--dense", "--model", self.result, "--out", dense, "--quiet")
        packed, exported = read_packed.open_packed(self.result), bt.tensors(dense)
        self.assertEqual(set(read_packed.modules(packed)),
                         {layer["name"] for layer in self.manifest["layers"]
                          if planned(layer["name"]) is not None})
        for name in read_packed.modules(packed):
            weight = read_packed.decode(packed, name).astype("<f2")
            self.assertEqual(exported[name + ".weight"][0], weight.tobytes(), name)
        ppl = {what: self.report("eval", "--ppl", windows, "--model", *model)["ppl"]
               for what, model in {"packed": [self.result], "dense": [dense],
                                   "run": [self.result, "--run-packed"]}.items()}
        self.assertLess(abs(ppl["dense"] / ppl["packed"] - 1), 1e-3)
        self.assertLess(abs(ppl["run"] / ppl["packed"] - 1), 0.05)
        result = bt.support("reference_nll.py", dense, windows)
        self.assertEqual(result.returncode, 0, result.stderr[-2000:])
        nll, count = result.stdout.split()
        self.assertLess(abs(ppl["packed"] / np.exp(float(nll) / int(count)) - 1), 1e-3)

    def test_the_manifests_plan_given_back(self):
        back = self.dir / "back.json"
        back.write_text(json.dumps(self.manifest["plan"]))
        out = self.dir / "out"
        report = self.report(*self.command(out, back), "--threads", 2)
        before, after = bt.digests(self.result), bt.digests(out)
        self.assertEqual([name for name in before if before[name] != after[name]],
                         [name for name in before if name.startswith("manifest.")])
        self.assertEqual(report["layers"], self.made["layers"])
        # The default name tells runs apart.
        report = self.report(*(word for word in self.command("", back) if word not in ("--out", "")))
        self.assertTrue(report["output"].endswith("-trellis-1.5bit-back"), report["output"])

    def test_a_layer_of_its_own_method_is_as_in_a_run_of_it(self):
        """The first layers, whose inputs nothing has changed."""
        whole = self.dir / "whole"
        self.billm("quantize", "--model", self.model, "--calib", self.tokens, "--out", whole,
                   "--method", "dbf", "--bits", "1", "--targets", "corrected", "--sink-weight", 32,
                   "--quiet")
        plan = self.dir / "plan.json"
        name = LAYERS + "0.self_attn.q_proj"
        bits = json.loads((whole / "manifest.json").read_text())["plan"][name]["bits"]
        plan.write_text(json.dumps({name: {"method": "dbf", "bits": bits}}))
        mixed = self.dir / "mixed"
        self.billm(*self.command(mixed, plan), "--quiet")
        expected, actual = bt.tensors(whole), bt.tensors(mixed)
        planes = [tensor for tensor in expected if tensor.startswith(name + ".")]
        self.assertGreater(len(planes), 3)
        for tensor in planes:
            self.assertEqual(actual[tensor], expected[tensor], tensor)

    def test_killed_and_resumed(self):
        out = self.dir / "out"
        journal = self.dir / "out.partial" / "journal.json"
        process = subprocess.Popen([bt.binary(), *map(str, self.command(out)), "--quiet"],
                                   env=self.environment())
        try:
            while not journal.exists() or not json.loads(journal.read_text())["blocks"]:
                self.assertIsNone(process.poll(), "ended before it could be killed")
                time.sleep(0.001)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        # The last pattern that matches holds, so that their order counts.
        turned = self.dir / "turned.json"
        turned.write_text(json.dumps(dict(reversed(PLAN.items()))))
        self.fails(bt.USAGE, *self.command(out, turned), "--resume", needles=["plan was {"])
        other = self.dir / "other.json"
        other.write_text(json.dumps(PLAN | {"*.up_proj": {"bits": 2}}))
        self.fails(bt.USAGE, *self.command(out, other), "--resume", needles=["plan was {"])
        # Without the stored states the finished blocks are passed, dense layers among them.
        for path in journal.parent.glob("*hidden*"):
            path.unlink()
        report = self.report(*self.command(out), "--resume")
        self.assertGreaterEqual(report["resumed_blocks"], 1)
        self.assertEqual(bt.digests(out), bt.digests(self.result))

    def test_learned(self):
        plan = self.dir / "learned.json"
        binary = {name: settings for name, settings in PLAN.items()
                  if settings.get("method") != "gptq"}
        plan.write_text(json.dumps(binary))
        tuned, original = self.dir / "tuned", bt.tensors(self.model)
        report = self.report(*self.command(tuned, plan), "--targets", "own", "--tune",
                             "--tune-steps", 6, "--tune-window", 48)
        # Nothing of the last block is quantized.
        self.assertEqual(len(report["tune"]), BLOCKS - 1)
        tune = json.loads((tuned / "manifest.json").read_text())["tune"]
        self.assertEqual([block is None for block in tune], [False, False, True])
        distilled = self.dir / "distilled"
        self.report("distill", "--model", tuned, "--original", self.model, "--calib", self.tokens,
                    "--steps", 4, "--window", 48, "--out", distilled)
        for result in (tuned, distilled):
            stored = bt.tensors(result)
            for name in (LAYERS + "2.self_attn.q_proj", LAYERS + "1.mlp.up_proj"):
                self.assertEqual(stored[name + ".weight"], original[name + ".weight"])
            self.report("inspect", result)
            self.report("eval", "--model", result, "--ppl", self.tokens)
        for more in ((), ("--dry-run",)):
            self.fails(bt.USAGE, *self.command(self.dir / "none"), "--tune", *more,
                       needles=[LAYERS + "1.", "--method gptq makes integers"])

    def test_tuned_behind_a_block_that_stays(self):
        """Its targets are of the same depth as its inputs: an untuned block in 3 bits is near them."""
        plan = self.dir / "first.json"
        plan.write_text(json.dumps({f"{LAYERS}0.*": {"bits": 16}}))
        report = self.report(*self.command(self.dir / "out", plan, ("--method", "trellis", "--bits",
                                                                   3)), "--targets", "own", "--tune",
                             "--tune-steps", 1, "--tune-window", 48)
        self.assertEqual(len(report["tune"]), BLOCKS - 1)
        for block in report["tune"]:
            self.assertLess(block["loss_before"], 0.2)
        self.assertEqual(report["sinks"][0]["error"] or 0, 0)

    def test_generate(self):
        ids = [self.report("generate", "--model", self.result, "--prompt", "the rain in spain", "-n",
                           16, "--greedy", "--threads", threads)["ids"] for threads in (1, 2)]
        self.assertEqual(len(ids[0]), 16)
        self.assertEqual(*ids)

    def test_dry_run(self):
        estimate = self.report(*self.command(self.dir / "none"), "--dry-run")
        # Random layers have other shares of salient columns (arb).
        self.assertAlmostEqual(estimate["stored_bits"], self.made["stored_bits"], delta=0.01)
        self.assertAlmostEqual(estimate["output_bytes"] / self.made["bytes_after"], 1, delta=0.2)

    def test_refused(self):
        """What is wrong, with the file and the pattern."""
        cases = [('{"*": {"bits": 1.3}}', "*: --bits 1.3: expected a number 0.25..3 in steps of 0.25"),
                 ('{"*": {"bits": "one"}}', "*: --bits one: expected"),
                 ('{"*": {"bits": 16, "sweeps": 1}}', 'expected "bits": 16'),
                 ('{"*": {"nm": "4:8"}}', "--nm: --method trellis does not use it"),
                 ('{"*": {"targets": "own"}}', "targets: is the same for all layers of a run"),
                 ('{"*": {"bit": 1}}', "bit: unknown setting"),
                 ('{"*": {"method": "awq"}}', "awq: unknown method"),
                 ('{"*": {"method": "stbllm", "nm": 4}}', "--nm"),
                 ('{"*": {"method": "rtn", "bits": 2, "scale_format": "f16"}}', "--scales"),
                 ('{"*": 2}', "expected an object such as"),
                 ('{"*.q_prj": {"bits": 1}}', "*.q_prj: no layer of the model has such a name"),
                 ('{"*": {"bits": 1}, "*": {"bits": 2}}', 'each key once, got "*" twice'),
                 ('{"*": {"bits": 16}}', "leaves all layers as they are"),
                 ('[1]', "expected"), ("{", "plan.json"), ("", "plan.json")]
        plan = self.dir / "plan.json"
        for text, needle in cases:
            with self.subTest(text=text):
                plan.write_text(text)
                self.fails(bt.BAD_INPUT, *self.command(self.dir / "none", plan),
                           needles=["plan.json", needle])
        self.fails(bt.BAD_INPUT, *self.command(self.dir / "none", plan), "--dry-run",
                   needles=["plan.json"])
        self.fails(bt.BAD_INPUT, *self.command(self.dir / "none", self.dir / "nowhere.json"),
                   needles=["nowhere.json"])


if __name__ == "__main__":
    bt.main()
