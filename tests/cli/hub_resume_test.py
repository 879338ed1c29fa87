"""Downloads that break off, stall, are killed or run twice at once: resumed, and whole in the end."""

import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt
import hub_testing
from hub_testing import TINY, WEIGHTS


class Resume(hub_testing.HubTestCase):
    def test_cut_connections(self):
        # Each time a tenth of the weights; the rest is asked for.
        tenth = len(self.files[WEIGHTS]) // 10
        self.hub.fault(WEIGHTS, server="cdn", cut=tenth, times=3)
        self.load()
        self.assert_complete()
        ranges = [r.headers.get("Range") for r in self.hub.requests if r.server == "cdn"]
        self.assertEqual(ranges, [None, *(f"bytes={tenth * i}-" for i in (1, 2, 3))])

    def test_cut_in_the_first_answers(self):
        self.hub.fault("/api/models", raw=b"", times=1)
        self.hub.fault("config.json", raw=b"HTTP/1.1 200 OK\r\nContent-Le", times=1)
        self.load()
        self.assert_complete()

    def test_server_that_ignores_ranges(self):
        half = len(self.files[WEIGHTS]) // 2
        self.hub.fault(WEIGHTS, server="cdn", cut=half, times=1)
        self.hub.fault(WEIGHTS, server="cdn", ignore_range=True)
        self.load()
        self.assert_complete()

    def test_range_that_is_refused(self):
        self.partial().parent.mkdir(parents=True)
        self.partial().write_bytes(self.files[WEIGHTS][:1000])
        self.hub.fault(WEIGHTS, server="cdn", status=416, times=1)
        self.load()
        self.assert_complete()
        ranges = [r.headers.get("Range") for r in self.hub.requests if r.server == "cdn"]
        self.assertEqual(ranges, ["bytes=1000-", None])
        # Not for ever.
        for path in (self.snapshot() / WEIGHTS, self.blob()):
            path.unlink()
        self.partial().write_bytes(self.files[WEIGHTS][:1000])
        self.hub.fault(WEIGHTS, server="cdn", status=416)
        self.refused(bt.FAILURE, "HTTP 416")

    def test_server_that_never_gets_farther(self):
        self.hub.fault(WEIGHTS, server="cdn", cut=1000, ignore_range=True)
        self.refused(bt.FAILURE, WEIGHTS, "stopped answering", "run the same command again")
        self.assertEqual(self.hub.count("", server="cdn"), 5)

    def test_early_end_in_good_order(self):
        self.hub.fault(WEIGHTS, server="cdn", end=len(self.files[WEIGHTS]) // 3, times=2)
        self.load()
        self.assert_complete()

    def test_silence(self):
        self.variables["HF_HUB_DOWNLOAD_TIMEOUT"] = "1"
        self.hub.fault(WEIGHTS, server="cdn", stall=5000, times=1)
        self.load()
        self.assert_complete()

    def test_killed(self):
        for end, number in ((40_000, signal.SIGINT), (80_000, signal.SIGKILL)):
            with self.subTest(number=number):
                self.hub.faults.clear()
                self.hub.fault(WEIGHTS, server="cdn", stall=40_000, times=1)
                process = self.start(*self.evaluate())
                deadline = time.monotonic() + 30
                while not (self.partial().exists() and self.partial().stat().st_size >= end):
                    self.assertLess(time.monotonic(), deadline)
                    time.sleep(0.05)
                process.send_signal(number)
                process.communicate(timeout=30)
                self.assertNotEqual(process.returncode, 0)
                self.assertEqual(self.partial().read_bytes(), self.files[WEIGHTS][:end])
                self.assertFalse((self.snapshot() / WEIGHTS).exists())
        result = self.load()
        self.assertIn("80 kB are there from an earlier run", result.stderr)
        self.assert_complete()
        last = [r for r in self.hub.requests if r.server == "cdn"][-1]
        self.assertEqual(last.headers["Range"], "bytes=80000-")

    def test_wrong_remains(self):
        for name, remains in (("changed", b"\1" * 1000), ("long", b"\1" * (1 << 20)),
                              ("whole", b"\1" * len(self.files[WEIGHTS]))):
            with self.subTest(name=name):
                shutil.rmtree(self.cache, ignore_errors=True)
                self.partial().parent.mkdir(parents=True)
                self.partial().write_bytes(remains)
                self.load()
                self.assert_complete()

    def test_two_runs_at_once(self):
        self.hub.fault(WEIGHTS, rate=50_000)
        runs = [self.start(*self.evaluate()) for _ in range(2)]
        outputs = [run.communicate(timeout=120) for run in runs]
        self.assertEqual([run.returncode for run in runs], [0, 0], outputs)
        self.assertEqual(self.hub.count("", "GET", "cdn"), 1)
        line = f"waiting: another process loads {TINY}@{self.repo.commit}: {WEIGHTS}\n"
        self.assertEqual(sum(line in err for _, err in outputs), 1, outputs)
        self.assert_complete()


if __name__ == "__main__":
    bt.main()
