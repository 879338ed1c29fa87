"""Products of factors from checkpoint to text: rotated layers, of planes and on a trellis, and binary
factors.

What the file stores, says and decodes to, by the independent reader and by transformers; the same
bytes at any number of threads; tuned and distilled; run by generate.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

sys.path.insert(0, str(bt.READ_PACKED.parent))
import read_packed

BLOCKS = 2
SIZES = dict(hidden=128, intermediate=192, blocks=BLOCKS)  # 2^7 and 3 times 2^6
ROTATED = ["rotation", "planes", "rotation"]
# Of each: the kinds of its factors, then the command line.
CASES = {"dbf": (["planes"] * 2, "--method", "dbf"),
         "dbf .7": (["planes"] * 2, "--method", "dbf", "--bits", "0.7"),
         "arb": (ROTATED, "--method", "arb", "--rotate", "both"),
         "billm": (ROTATED, "--method", "billm", "--rotate", "both"),
         "gptq": (["planes", "rotation"], "--method", "gptq", "--bits", "2", "--rotate", "in"),
         # Corrected targets, its default, leave its scales little to learn.
         "trellis": (["rotation", "trellis", "rotation"], "--method", "trellis", "--bits", "1.5",
                     "--targets", "own")}
BITS = {"dbf": 1.0, "dbf .7": 0.7}  # asked for
LEARNING = ("dbf", "arb", "trellis")
FEW_STEPS = ("--tune", "--tune-steps", 12, "--tune-window", 48)


def shard_digests(directory):
    return {name: digest for name, digest in bt.digests(directory).items()
            if name.endswith(".safetensors")}


def by_manifest(layers):
    return {layer["name"]: layer for layer in layers}


class Products(bt.SharedTestCase):
    """The results are made once for the class; setUpClass makes them, with one thread."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # No end of text: a text is as long as was asked for.
        cls.model = bt.make_tiny_llama(cls.maker.dir / "model", **SIZES,
                                       change=lambda config, _: config.update(eos_token_id=None))
        cls.tokens = cls.maker.calibration(rows=4, length=96)
        cls.results, cls.reports = {}, {}
        for case in CASES:
            cls.results[case], cls.reports[case] = cls.maker.quantize(case)

    def quantize(self, case, *more, name=None, threads=1):
        out = self.dir / (name or case.replace(" ", ""))
        report = self.report("quantize", "--model", self.model, "--calib", self.tokens, "--out",
                             out, *CASES[case][1:], "--threads", threads, *more)
        return out, report

    def test_inspect_says_what_the_file_holds(self):
        for case, (kinds, *_) in CASES.items():
            with self.subTest(case=case):
                out, made = self.results[case], self.reports[case]
                stored, seen = bt.tensors(out), self.report("inspect", out)
                self.assertEqual(len(seen["layers"]), 7 * BLOCKS)
                total = weights = 0
                for layer in seen["layers"]:
                    prefix = layer["name"] + "."
                    size = sum(len(data) for name, (data, _) in stored.items()
                               if name.startswith(prefix))
                    rows, cols = layer["shape"]
                    self.assertAlmostEqual(layer["stored_bits"], 8 * size / (rows * cols), places=12)
                    self.assertEqual([factor["kind"] for factor in layer["factors"]], kinds)
                    self.assertEqual(layer["layout"], "product")
                    total, weights = total + size, weights + rows * cols
                totals = seen["totals"]
                self.assertEqual((totals["packed_bytes"], totals["weights"]), (total, weights))
                self.assertAlmostEqual(totals["stored_bits"], 8 * total / weights, places=12)
                self.assertAlmostEqual(totals["stored_bits"], made["stored_bits"], places=12)
                # As a text.
                text = self.billm("inspect", out).stdout
                found = re.search(r"total: (\d+) layers, (\d+) weights, (\d+) packed bytes; nominal "
                                  r"\S+ bits, stored (\S+) bits; largest error (\S+)$", text, re.M)
                self.assertEqual([int(x) for x in found.groups()[:3]], [7 * BLOCKS, weights, total])
                self.assertEqual(found[4], f"{8 * total / weights:.4f}")
                largest = max(layer["error"] for layer in made["layers"])
                self.assertEqual(found[5], f"{largest:.6f}")
                self.assertEqual(text.count("rotation"), 7 * BLOCKS * kinds.count("rotation"))
                size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
                self.assertEqual(size, made["bytes_after"])
                config = json.loads((out / "config.json").read_text())["quantization_config"]
                self.assertEqual(config["format_version"], 2)

    def test_bits_asked_for(self):
        for case, bits in BITS.items():
            with self.subTest(case=case):
                layers = self.reports[case]["layers"]
                weights = [np.prod(layer["shape"]) for layer in layers]
                used = [layer["stored_bits"] * w for layer, w in zip(layers, weights)]
                self.assertLessEqual(sum(used), bits * sum(weights))
                # A step of the rank of the last layer would have been too much.
                self.assertGreater(sum(used) + 8 * (sum(layers[-1]["shape"]) + 16),
                                   bits * sum(weights))
                self.assertLessEqual(self.reports[case]["stored_bits"], bits)
        self.assertLess(self.reports["dbf .7"]["stored_bits"], self.reports["dbf"]["stored_bits"])
        # A rotation costs nothing.
        for case in ("arb", "billm", "gptq"):
            arguments = CASES[case][1:-2]  # without --rotate
            plain = self.report("quantize", "--model", self.model, "--calib", self.tokens, "--out",
                                self.dir / case, *arguments)
            self.assertAlmostEqual(plain["stored_bits"], self.reports[case]["stored_bits"],
                                   delta=1e-12 if case == "gptq" else 0.01, msg=case)

    def test_errors_are_those_of_the_decoded_weights(self):
        """Of the first linears, whose inputs are normed embeddings."""
        original = {name: np.frombuffer(data, "<f2").astype(np.float64).reshape(shape)
                    for name, (data, shape) in bt.tensors(self.model).items()}
        inputs = original["model.embed_tokens.weight"][np.load(self.tokens).ravel()]
        inputs /= np.sqrt((inputs**2).mean(axis=1, keepdims=True) + 1e-5)
        inputs *= original["model.layers.0.input_layernorm.weight"]
        for case, result in self.results.items():
            packed = read_packed.open_packed(result)
            layers = by_manifest(self.reports[case]["layers"])
            for linear in ("q_proj", "k_proj", "v_proj"):
                with self.subTest(case=case, linear=linear):
                    name = f"model.layers.0.self_attn.{linear}"
                    weight = original[f"{name}.weight"]
                    outputs = inputs @ weight.T
                    error = inputs @ (weight - read_packed.decode(packed, name)).T
                    error = (error**2).sum() / (outputs**2).sum()
                    self.assertAlmostEqual(layers[name]["error"] / error, 1, delta=1e-3)
                    self.assertLess(error, 0.5)

    def test_export_and_perplexity(self):
        windows, expected = self.calibration(rows=3, length=64, seed=5), {}
        original = self.report("eval", "--model", self.model, "--ppl", windows)["ppl"]
        for case, result in self.results.items():
            with self.subTest(case=case):
                dense = self.dir / case.replace(" ", "")
                self.billm("export", "--dense", "--model", result, "--out", dense, "--quiet")
                packed, exported = read_packed.open_packed(result), bt.tensors(dense)
                names = read_packed.modules(packed)
                self.assertEqual(len(names), 7 * BLOCKS)
                for name in names:
                    weight = read_packed.decode(packed, name).astype("<f2")
                    data, shape = exported[f"{name}.weight"]
                    self.assertEqual(shape, list(weight.shape))
                    self.assertEqual(data, weight.tobytes(), name)
                reports = {what: self.report("eval", "--model", *model, "--ppl", windows)
                           for what, model in {"packed": [result], "dense": [dense],
                                               "run": [result, "--run-packed"],
                                               "prompt": [result, "--run-packed=prefill"]}.items()}
                expected[dense] = ppl = reports["packed"]["ppl"]
                self.assertGreater(abs(ppl / original - 1), 0.01)
                # Exported weights are rounded to fp16. Those that run read inputs of 8 bits, once for
                # each factor (0.033 for dbf at 0.7 bits, the worst); the original is a third away.
                self.assertLess(abs(reports["dense"]["ppl"] / ppl - 1), 1e-3)
                for what, path in {"run": "decode", "prompt": "prefill"}.items():
                    self.assertNotEqual(reports[what]["ppl"], ppl)
                    self.assertLess(abs(reports[what]["ppl"] / ppl - 1), 0.05)
                    self.assertEqual(reports[what]["run_packed"], path)
                    self.assertIn("cpu, ", reports[what]["kernels"])
                self.assertNotIn("kernels", reports["packed"])
        self.assertEqual(len(expected), len(CASES))
        pairs = [word for dense in expected for word in (dense, windows)]
        result = bt.support("reference_nll.py", *pairs)
        self.assertEqual(result.returncode, 0, result.stderr[-2000:])
        for (dense, ppl), line in zip(expected.items(), result.stdout.splitlines(), strict=True):
            nll, count = line.split()
            self.assertEqual(int(count), 3 * 63)
            self.assertLess(abs(ppl / np.exp(float(nll) / int(count)) - 1), 1e-3, dense.name)

    def test_threads(self):
        for case, result in self.results.items():
            with self.subTest(case=case):
                out, report = self.quantize(case, threads=2)
                self.assertEqual(bt.digests(out), bt.digests(result))
                self.assertEqual(report["layers"], self.reports[case]["layers"])

    def test_seeds_of_rotations(self):
        for case in ("arb", "billm", "gptq"):
            with self.subTest(case=case):
                out, report = self.quantize(case, "--rotate-seed", 7)
                self.assertEqual(json.loads((out / "manifest.json").read_text())["settings"]
                                 ["rotate_seed"], 7)
                before, after = shard_digests(self.results[case]), shard_digests(out)
                self.assertEqual(before.keys(), after.keys())
                same = [name for name in before if before[name] == after[name]]
                self.assertEqual(same, [max(before)])  # what is not quantized
                # The default is 0, also when it is given.
                zero, _ = self.quantize(case, "--rotate-seed", 0, name="zero" + case)
                self.assertEqual(bt.digests(zero), bt.digests(self.results[case]))

    def test_tuned(self):
        for case in LEARNING:
            with self.subTest(case=case):
                out, report = self.quantize(case, *FEW_STEPS)
                self.assertEqual(len(report["tune"]), BLOCKS)
                before, after = (np.array([block[key] for block in report["tune"]])
                                 for key in ("loss_before", "loss_after"))
                # So little text need not help every block; the best state is kept.
                self.assertTrue((after <= before).all(), (before, after))
                self.assertLess(after.sum(), 0.95 * before.sum())
                self.assertEqual(report["stored_bits"], self.reports[case]["stored_bits"])
                again, _ = self.quantize(case, *FEW_STEPS, name=case + "-again", threads=2)
                self.assertEqual(bt.digests(again), bt.digests(out))
                # What was measured is what stands in the file: it serves the text that it is from.
                # (Other text means nothing to a random model.)
                distances = [self.report("eval", "--model", model, "--ppl", self.tokens, "--kl",
                                         self.model)["kl_mean"]
                             for model in (self.results[case], out)]
                self.assertLess(distances[1], distances[0])

    def test_distilled(self):
        for case in LEARNING:
            with self.subTest(case=case):
                before = bt.digests(self.results[case])
                made = []
                for threads in (1, 2):
                    out = self.dir / f"{case}-{threads}"
                    report = self.report("distill", "--model", self.results[case], "--original",
                                         self.model, "--calib", self.tokens, "--steps", 8,
                                         "--window", 48, "--threads", threads, "--out", out)
                    made.append(bt.digests(out))
                    distilled = report["distill"]
                    self.assertLess(distilled["loss_after"], distilled["loss_before"])
                    self.assertEqual(report["stored_bits"], self.reports[case]["stored_bits"])
                self.assertEqual(*made)
                self.assertNotEqual(made[0], before)
                self.assertEqual(bt.digests(self.results[case]), before)
                for name in read_packed.modules(packed := read_packed.open_packed(out)):
                    self.assertTrue(np.isfinite(read_packed.decode(packed, name)).all())

    def test_generate(self):
        for case, result in self.results.items():
            with self.subTest(case=case):
                reports = [self.report("generate", "--model", result, "--prompt", "the rain in spain",
                                       "-n", 24, "--greedy", "--threads", threads)
                           for threads in (1, 2)]
                self.assertEqual(len(reports[0]["ids"]), 24)
                self.assertEqual(reports[0]["ids"], reports[1]["ids"])
                self.assertGreater(len(set(reports[0]["ids"])), 1)

    def test_device_cuda(self):
        """With and without a GPU."""
        product = ["device cuda: model.layers.", "is a product of factors", "--device cpu"]
        for case, result in self.results.items():
            for command, needles in (
                    (("generate", "--prompt", "the rain", "-n", 2), product),
                    (("eval", "--ppl", self.tokens, "--run-packed"), product),
                    # Without a GPU this is said before the model is looked at.
                    (("bench", "--skip-layers"), ["device cuda: ", "--device cpu"])):
                with self.subTest(case=case, command=command[0]):
                    self.fails(bt.FAILURE, *command, "--model", result, "--device", "cuda",
                               needles=needles)


if __name__ == "__main__":
    bt.main()
