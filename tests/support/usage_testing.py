"""A tiny model to quantize, for tests of runs that fail."""

import shutil

import billm_testing as bt


class UsageTestCase(bt.TestCase):
    def setUp(self):
        super().setUp()
        self.model = bt.make_tiny_llama(self.dir / "model")
        self.tokens = self.calibration()
        self.out = self.dir / "out"

    def arguments(self, *more, out=None, calib=None, method="rtn"):
        return ("quantize", "--model", self.model, "--method", method, "--calib",
                calib or self.tokens, "--out", out or self.out, *more)

    def refused(self, code, *more, needles, out=None, calib=None, method="rtn", **options):
        self.fails(code, *self.arguments(*more, out=out, calib=calib, method=method),
                   needles=needles, **options)
        self.assertFalse((self.home / "newest").is_symlink())
        if out is None:
            self.assertEqual([p.name for p in self.dir.glob("out*")], [])

    def forget(self):
        """Removes what a case that should have failed has left."""
        for path in (self.out, self.home):
            shutil.rmtree(path, ignore_errors=True)
