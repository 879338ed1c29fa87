"""A disk that fills up: one clear line, exit code 1, no result that looks whole, the old one kept.

Runs in a mount namespace of its own on a tmpfs of the wanted size, so that no root is needed where
the system allows user namespaces; skips elsewhere (bad_output_test.py has a limit on file sizes).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt


class FullDisk(bt.SmallDisk, bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model")
        self.tokens = self.calibration()
        self.disk = self.dir / "disk"

    def quantize(self, *more):
        words = ["$BILLM quantize --quiet --model", self.model, "--calib", self.tokens, *more]
        return " ".join(map(str, words))

    def test_quantize(self):
        self.require_namespaces()
        self.billm("quantize", "--quiet", "--model", self.model, "--calib", self.tokens, "--out",
                   self.dir / "whole")
        whole = sum(path.stat().st_size for path in (self.dir / "whole").iterdir())
        # Full in the first block, in between, and when the last files are written.
        for share in (0.02, 0.15, 0.3, 0.5, 0.7, 0.9, 0.97):
            with self.subTest(share=share):
                pages = max(1, int(whole * share / 4096))
                script = self.quantize("--out out; code=$?; ls; exit $code")
                result = self.on_disk(str(pages * 4096), script)
                self.assertNotIn("out\n", result.stdout.splitlines(keepends=True))
                result.stdout = ""
                self.assert_error(result, "quantize", bt.FAILURE, "out", "No space left on device")

    def test_the_old_result_stays(self):
        self.require_namespaces()
        result = self.on_disk("400k", "; ".join([
            "set -e", self.quantize("--method rtn --out out"), "sha256sum out/* > before",
            "head -c 40k /dev/zero > spare", "(cat /dev/zero > rest) 2> /dev/null || true",
            "rm spare", "set +e",
            self.quantize("--out out --overwrite"), "code=$?", "set -e",
            "sha256sum --quiet -c before", "ls | tr '\\n' ' '", "exit $code"]))
        self.assertEqual(result.stdout.split()[:2], ["before", "out"], result)
        result.stdout = ""
        self.assert_error(result, "quantize", bt.FAILURE, "No space left on device")

    def test_export(self):
        self.require_namespaces()
        self.billm("quantize", "--model", self.model, "--calib", self.tokens, "--out",
                   self.dir / "packed", "--quiet")
        script = f"$BILLM export --dense --quiet --model {self.dir / 'packed'} --out dense; "
        result = self.on_disk("100k", script + "code=$?; ls; exit $code")
        self.assertEqual(result.stdout, "")  # nothing finished that would be worth keeping
        self.assert_error(result, "export", bt.FAILURE, "dense", "No space left on device")

    def test_json(self):
        self.require_namespaces()
        result = self.on_disk("4k", f"head -c 4096 /dev/zero > zeros; $BILLM eval --quiet --model "
                                    f"{self.model} --ppl {self.tokens} --json report.json")
        self.assert_error(result, "eval", bt.FAILURE, "report.json", "No space left on device")


if __name__ == "__main__":
    bt.main()
