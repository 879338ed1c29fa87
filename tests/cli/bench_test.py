"""billm bench: its report, what can be left out, and what is refused. Times themselves are not
tested, only that they are there and consistent."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt

LAYERS = ("signs", "billm", "arb", "stbllm", "pbllm", "gptq2")


class Bench(bt.TestCase):
    def packed(self):
        model = bt.make_tiny_llama(self.dir / "model")
        self.billm("quantize", "--model", model, "--method", "rtn", "--calib", self.calibration(),
                   "--out", self.dir / "packed", "--quiet")
        return self.dir / "packed"

    def test_layers(self):
        report = self.report("bench", "--skip-model", "--shape", "300x256", "--batch", "1", "5",
                             "--repetitions", "1", "--threads", "2", "--cold", "2")
        self.assertGreater(report["memory_bytes_per_second"], 1e8)
        self.assertEqual([(row["layer"], row["batch"]) for row in report["layers"]],
                         [(name, batch) for name in LAYERS for batch in (1, 5)])
        for row in report["layers"]:
            self.assertEqual((row["rows"], row["cols"]), (300, 256))
            self.assertGreater(row["stored_bits"], 1)
            # Rows in tiles of 16 or 64; the PB-LLM columns and counts are bytes at run time.
            self.assertLess(row["run_bits"], 2.5 * row["stored_bits"] + 0.5)
            self.assertGreaterEqual(row["seconds"], row["seconds_fastest"])
            self.assertGreater(row["dense_fp32_seconds"], 0)
            run_bytes = row["run_bits"] / 8 * 300 * 256
            self.assertAlmostEqual(row["bytes_per_second"], run_bytes / row["seconds"],
                                   delta=1e-6 * row["bytes_per_second"])

    def test_model(self):
        model = self.packed()
        report = self.report("bench", "--model", model, "--skip-layers", "-p", "20", "-n", "4",
                             "-r", "3")
        self.assertNotIn("layers", report)
        for kind in ("packed", "dense_fp32"):
            self.assertEqual(report[kind]["prefill"]["tokens"], 20)
            self.assertEqual(len(report[kind]["decode"]["repetitions"]), 3)
            self.assertEqual(report[kind]["decode"]["tokens_per_second"],
                             sorted(report[kind]["decode"]["repetitions"])[1])
        self.assertLess(report["packed"]["linear_bytes"], report["dense_fp32"]["linear_bytes"] / 8)
        self.assertGreater(report["packed"]["stored_bits"], 1)
        report = self.report("bench", "--model", model, "--skip-layers", "-p", "0", "-n", "2",
                             "-r", "1", "--skip-dense")
        self.assertNotIn("prefill", report["packed"])
        self.assertNotIn("dense_fp32", report)

    def test_the_newest_result_and_text(self):
        self.fails(2, "bench", "--skip-layers", needles=["no result"])
        model = self.packed()
        text = self.billm("bench", "--skip-layers", "-p", "4", "-n", "2", "-r", "1").stdout
        for needle in (str(model), "prefill of 4 tokens", "decode of 2 tokens", "fp32"):
            self.assertIn(needle, text)

    def test_instructions(self):
        layer = ("bench", "--skip-model", "--shape", "40x256", "--layer", "signs", "-r", 1,
                 "--cold", 1, "--quiet", "--json", "-")

        def run(target):
            return self.run_billm(*layer, variables={"BILLM_CPU_TARGET": target})

        result = run("AVX9")
        self.assert_error(result, "bench", bt.USAGE, "BILLM_CPU_TARGET: expected one of ",
                          ", got AVX9")
        targets = result.stderr.split("one of ")[1].split(", got")[0].split(", ")
        bits = {}
        for target in ["", *targets]:
            result = run(target)
            self.assertEqual(result.returncode, 0, result.stderr)
            bits[target] = json.loads(result.stdout)["layers"][0]["run_bits"]
        self.assertEqual(bits[""], bits[targets[0]])  # the best
        if "AVX3_DL" in bits:  # its tiles have 16 rows, those of others 64
            self.assertLess(bits["AVX3_DL"], bits["AVX2"])

    def test_encode(self):
        report = self.report("bench", "--encode", "-r", "3")
        self.assertEqual(sorted(report), ["encode", "instructions"])
        self.assertEqual([row["bits_of_four"] for row in report["encode"]], [1, 2, 3, 4])
        for row in report["encode"]:
            self.assertGreater(row["seconds_fastest"], 1e-11)
            self.assertGreaterEqual(row["seconds"], row["seconds_fastest"])
        result = self.run_billm("bench", "--encode", "-r", "1",
                                variables={"BILLM_CPU_TARGET": report["instructions"]})
        self.assertEqual(result.returncode, 0, result.stderr)
        for needle in (report["instructions"], "0.25 bits", "1.00 bits"):
            self.assertIn(needle, result.stdout)

    def test_refused(self):
        for shape in ("4096", "0x4", "4x", "4x4x", "axb", "-1x4", "2000000x4"):
            self.fails(2, "bench", "--skip-model", "--shape", shape, needles=["--shape"])
        self.fails(2, "bench", "--skip-model", "--layer", "nothing", needles=["layer", "stbllm"])
        self.fails(2, "bench", "--skip-model", "--batch", "0", needles=["--batch"])
        self.fails(3, "bench", "--skip-layers", "--model", self.dir / "none")


if __name__ == "__main__":
    bt.main()
