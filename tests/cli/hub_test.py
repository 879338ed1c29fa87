"""Names of models on the hub: downloads into the HuggingFace cache, against a hub that behaves like
the real one, and one that misbehaves. The cache's layout is compared with huggingface_hub itself.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt
import hub_testing
from hub_testing import TINY, WEIGHTS

OTHERS = {"README.md": b"#", "original/params.json": b"{}", "consolidated.00.pth": b"x" * 100,
          "consolidated.safetensors": b"y" * 100, "model.gguf": b"g", "pytorch_model.bin": b"p" * 99,
          "tf_model.h5": b"h", "flax_model.msgpack": b"m", "onnx/model.onnx": b"o"}


class Download(hub_testing.HubTestCase):
    def test_downloads_once(self):
        result = self.load()
        self.assertIn("downloading org/tiny (3 files, ", result.stderr)
        self.assertIn(str(self.folder()), result.stderr)
        self.assertRegex(result.stderr, r"download \S+ kB of \S+ kB \(100 %\)  \S+ \S+/s")
        self.assert_complete()
        link = self.snapshot() / WEIGHTS
        self.assertEqual(os.readlink(link), f"../../blobs/{self.repo.etag(WEIGHTS)}")
        self.assertEqual((self.folder() / "refs/main").read_text(), self.repo.commit)
        # From now on the network is not needed.
        self.hub.requests.clear()
        for model in (TINY, f"{TINY}@{self.repo.commit}"):
            self.assertNotIn("downloading", self.load(model).stderr)
        self.variables["HF_HUB_OFFLINE"] = "on"
        self.load()
        self.assertEqual(self.hub.requests, [])

    def test_quiet(self):
        result = self.billm(*self.evaluate(), "--quiet")
        self.assertEqual((result.stdout, result.stderr), ("", ""))
        self.assert_complete()

    def test_only_what_is_needed(self):
        repo = self.hub.add("org/many", self.files | OTHERS, lfs=[WEIGHTS])
        self.load("org/many")
        self.assertEqual(sorted(p.name for p in self.snapshot(repo).iterdir()), sorted(self.files))

    def test_tokenize_takes_no_weights(self):
        text = self.billm("tokenize", "--model", TINY, "a text").stdout
        self.assertEqual(text, self.billm("tokenize", "--model", self.dir / "original",
                                          "a text").stdout)
        self.assertFalse((self.snapshot() / WEIGHTS).exists())
        self.assertEqual(self.hub.count(WEIGHTS), 0)
        before = self.hub.count("tokenizer.json")
        self.load()  # completes the snapshot
        self.assert_complete()
        self.assertEqual(self.hub.count("tokenizer.json"), before)

    def test_shards_in_parallel(self):
        files = hub_testing.sharded(self.files)
        lfs = [name for name in files if name.startswith("model-")]
        repo = self.hub.add("org/shards", files | {"model-of-another.safetensors": b""}, lfs=lfs)
        for name in lfs:
            self.hub.fault(name, rate=60_000)
        self.load("org/shards")
        self.assertFalse((self.snapshot(repo) / "model-of-another.safetensors").exists())
        del repo.files["model-of-another.safetensors"]
        self.assert_complete(repo)
        # A shard that is gone is loaded again, at the commit that is there.
        (self.snapshot(repo) / lfs[1]).unlink()
        (self.folder("org/shards") / "blobs" / repo.etag(lfs[1])).unlink()
        repo.revisions["main"] = "0" * 40
        self.hub.requests.clear()
        self.load("org/shards")
        self.assert_complete(repo)
        self.assertEqual(self.hub.count("", server="cdn"), 1)
        self.assertEqual(self.hub.count("/revision/main"), 0)

    def test_index_that_names_what_is_not_there(self):
        files = hub_testing.sharded(self.files)
        del files["model-00002-of-00003.safetensors"]
        self.hub.add("org/shards", files)
        self.refused(bt.BAD_INPUT, "org/shards", "model-00002-of-00003.safetensors",
                     model="org/shards")
        files["model.safetensors.index.json"] = b'{"weight_map": {"a": "../../x"}}'
        self.hub.add("org/escape", files)
        self.refused(bt.BAD_INPUT, "weight_map", model="org/escape")

    def test_revisions(self):
        repo = self.hub.add("org/branches", self.files, revisions=["v1.0", "refs/pr/1"])
        for revision in ("v1.0", "refs/pr/1"):
            self.load(f"org/branches@{revision}")
            self.assertEqual((self.folder(repo.id) / "refs" / revision).read_text(), repo.commit)
        self.assertEqual(self.hub.count(WEIGHTS, "GET"), 2)  # one, through a redirect

    def test_repository_without_a_tokenizer(self):
        files = {name: data for name, data in self.files.items() if name != "tokenizer.json"}
        repo = self.hub.add("org/bare", files)
        self.load("org/bare")
        self.hub.requests.clear()
        self.load("org/bare")
        self.assertEqual(self.hub.requests, [])
        self.assertTrue((self.folder("org/bare") / ".no_exist" / repo.commit /
                         "tokenizer.json").is_file())
        self.fails(bt.BAD_INPUT, "tokenize", "--model", "org/bare", "text", needles=["tokenizer"])

    def test_alias_and_result_name(self):
        self.hub.add("facebook/opt-125m", self.files, lfs=[WEIGHTS])
        self.billm("quantize", "--model", "opt-125m", "--method", "rtn", "--calib", self.tokens)
        self.assertTrue((self.home / "results" / "opt-125m-rtn" / "manifest.json").is_file())
        self.billm("quantize", "--model", TINY, "--method", "rtn", "--calib", self.tokens)
        self.assertTrue((self.home / "results" / "tiny-rtn" / "manifest.json").is_file())

    def test_shared_blobs(self):
        self.load()
        newer = self.hub.add(TINY, self.files | {"generation_config.json": b"{}"}, lfs=[WEIGHTS])
        self.hub.requests.clear()
        self.load(f"{TINY}@{newer.commit}")
        self.assertEqual(self.hub.count("", server="cdn"), 0)
        self.assert_complete(newer)

    def test_cache_places(self):
        places = {"HF_HUB_CACHE": "a", "HUGGINGFACE_HUB_CACHE": "b", "HF_HOME": "c",
                  "XDG_CACHE_HOME": "d", "HOME": "e"}
        below = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub",
                 "HOME": ".cache/huggingface/hub"}
        self.variables = {name: str(self.dir / place) for name, place in places.items()}
        for name, place in places.items():
            self.billm("tokenize", "--model", TINY, "x")
            self.assertTrue((self.dir / place / below.get(name, "") / "models--org--tiny").is_dir())
            self.variables[name] = ""


class Library(hub_testing.HubTestCase):
    """huggingface_hub reads what billm wrote, and the other way round."""

    def setUp(self):
        super().setUp()
        self.library = hub_testing.hub_library()

    def test_it_finds_ours(self):
        self.load()
        for file in self.files:
            found = self.library.try_to_load_from_cache(TINY, file, cache_dir=self.cache)
            self.assertEqual(Path(found).read_bytes(), self.files[file])
        found = self.library.snapshot_download(TINY, cache_dir=self.cache, local_files_only=True)
        self.assertEqual(Path(found), self.snapshot())
        info = self.library.scan_cache_dir(self.cache)
        self.assertEqual(info.warnings, [])
        (repo,) = info.repos
        self.assertEqual((repo.repo_id, repo.repo_type), (TINY, "model"))
        self.assertEqual(repo.refs["main"].commit_hash, self.repo.commit)
        self.assertEqual(repo.size_on_disk, sum(map(len, self.files.values())))

    def test_absent_files(self):
        files = {name: data for name, data in self.files.items() if name != "tokenizer.json"}
        self.hub.add("org/bare", files)
        self.load("org/bare")
        found = self.library.try_to_load_from_cache("org/bare", "tokenizer.json",
                                                    cache_dir=self.cache)
        self.assertIsNot(found, None)
        self.assertFalse(isinstance(found, str))

    def library_download(self, **more):
        """In a process of its own: the library reads its variables when it is imported."""
        code = "import huggingface_hub as h, json, sys; h.snapshot_download(**json.loads(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, json.dumps({"repo_id": TINY} | more)], check=True,
                       env=self.environment() | {"HF_HUB_DISABLE_XET": "1"}, timeout=120,
                       capture_output=True)

    def test_we_find_its(self):
        self.library_download()
        self.assert_complete()
        self.hub.requests.clear()
        self.load()
        self.assertEqual(self.hub.requests, [])

    def test_we_complete_its(self):
        self.library_download(allow_patterns=["config.json"])
        self.load()
        self.assert_complete()

    def test_its_lock_excludes_us(self):
        lock = self.cache / ".locks" / "models--org--tiny" / f"{self.repo.etag(WEIGHTS)}.lock"
        lock.parent.mkdir(parents=True)
        import filelock

        with filelock.FileLock(lock):
            process = self.start(*self.evaluate())
            lines = [process.stderr.readline() for _ in range(2)]
            self.assertIn("waiting: another process loads org/tiny", "".join(lines))
            self.assertFalse(self.partial().exists())
        self.assertEqual(process.wait(60), 0, process.stderr.read())
        process.communicate()
        self.assert_complete()


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
        self.assertEqual(sum("waiting: another process loads" in err for _, err in outputs), 1)
        self.assert_complete()


class Lies(hub_testing.HubTestCase):
    def test_wrong_body(self):
        same_size = bytearray(self.files[WEIGHTS])
        same_size[-1] ^= 1
        for file, body in ((WEIGHTS, bytes(same_size)), ("config.json", b"{" + b" " * (
                len(self.files["config.json"]) - 2) + b"}")):
            with self.subTest(file=file):
                self.hub.faults.clear()
                shutil.rmtree(self.cache, ignore_errors=True)
                self.hub.fault(file, method="GET", body=body)
                self.refused(bt.FAILURE, file, "checksum: expected", self.repo.etag(file))
                self.assertFalse(self.partial(file).exists())
        self.hub.faults.clear()
        self.load()
        self.assert_complete()

    def test_wrong_sizes(self):
        size = len(self.files[WEIGHTS])
        lies = {"linked_size": ({"linked_size": size + 1}, "hub"),
                "longer": ({"body": self.files[WEIGHTS] + b"x"}, "cdn"),
                "shorter": ({"body": self.files[WEIGHTS][:-1]}, "cdn"),
                "longer, without a length": ({"body": self.files[WEIGHTS] * 2, "end": size * 2},
                                             "cdn")}
        for name, (lie, server) in lies.items():
            with self.subTest(name=name):
                self.hub.faults.clear()
                self.hub.fault(WEIGHTS, server=server, **lie)
                self.refused(bt.FAILURE, WEIGHTS, "expected", str(size))
                self.assertFalse(self.partial().exists())

    def test_wrong_range(self):
        self.hub.fault(WEIGHTS, server="cdn", cut=5000, times=1)
        self.hub.fault(WEIGHTS, server="cdn", headers={"Content-Range": "bytes 0-9/10"})
        self.refused(bt.FAILURE, WEIGHTS, "range: expected bytes 5000-")

    def test_wrong_descriptions(self):
        cases = {"etag": ({"linked_etag": "../../../etc/passwd"}, "ETag"),
                 "short etag": ({"linked_etag": "abc"}, "ETag"),
                 "commit": ({"commit": "1" * 40}, "X-Repo-Commit"),
                 "no commit": ({"commit": "main"}, "X-Repo-Commit")}
        for name, (fault, needle) in cases.items():
            with self.subTest(name=name):
                self.hub.faults.clear()
                self.hub.fault("config.json", method="HEAD", **fault)
                self.refused(bt.FAILURE, "config.json", needle)
        self.assertEqual(list(self.cache.rglob("passwd")), [])

    def test_wrong_lists(self):
        commit = self.repo.commit
        lists = {"escape": {"sha": commit, "siblings": [{"rfilename": "../../../x"}]},
                 "absolute": {"sha": commit, "siblings": [{"rfilename": "/tmp/x"}]},
                 "twice": {"sha": commit, "siblings": [{"rfilename": "a"}] * 2},
                 "no commit": {"sha": "../x", "siblings": []}, "a list": [], "nothing": {},
                 "numbers": {"sha": commit, "siblings": [1, 2]}}
        for name, answer in lists.items():
            with self.subTest(name=name):
                self.hub.faults.clear()
                self.hub.fault("/api/models", json=answer)
                self.refused(bt.BAD_INPUT, "/api/models/org/tiny")
        self.assertEqual(list(self.dir.rglob("x")), [])

    def test_too_large_answers(self):
        self.hub.fault("/api/models", raw=b"HTTP/1.1 200 OK\r\n" + b"A: " + b"b" * 90_000 + b"\r\n\r\n")
        self.refused(bt.FAILURE, "64 KiB")
        self.hub.faults.clear()
        self.hub.fault("/api/models", json={"sha": "a" * (65 << 20)})
        self.refused(bt.FAILURE, "at most")

    def test_not_http(self):
        self.hub.fault("/api/models", raw=b"SSH-2.0-OpenSSH_9.2\r\n")
        self.refused(bt.FAILURE, "bad answer", "HF_ENDPOINT")

    def test_redirects(self):
        cases = {"file:///etc/passwd": "redirect", "ftp://127.0.0.1/x": "redirect",
                 f"{self.hub.url}/{TINY}/resolve/main/config.json": "redirects"}
        for target, needle in cases.items():
            with self.subTest(target=target):
                self.hub.faults.clear()
                self.hub.fault("config.json", method="HEAD", redirect=target)
                self.refused(bt.FAILURE, "config.json", needle)


class Refusals(hub_testing.HubTestCase):
    def refuse(self, status, code, message=""):
        self.hub.add("org/no", {}, error={"status": status, "code": code, "message": message})

    def test_gated(self):
        for status in (401, 403):
            self.refuse(status, "GatedRepo", "Access to model org/no is restricted.")
            self.refused(bt.BAD_INPUT, "org/no", f"accept it at {self.hub.url}/org/no",
                         "set HF_TOKEN", model="org/no")
        self.variables["HF_TOKEN"] = "hf_abc"
        self.refused(bt.BAD_INPUT, "check that the token of HF_TOKEN", model="org/no")

    def test_gated_files_of_a_public_list(self):
        self.hub.fault("/resolve/", status=403, headers={"X-Error-Code": "GatedRepo"})
        self.refused(bt.BAD_INPUT, "org/tiny", f"accept it at {self.hub.url}/org/tiny")

    def test_unknown_names(self):
        for token in ("", "hf_abc"):
            self.variables["HF_TOKEN"] = token
            self.refused(bt.BAD_INPUT, "org/none: no such repository", "check the name",
                         model="org/none")
        self.refused(bt.BAD_INPUT, "expected the revision v9", model=f"{TINY}@v9")
        self.hub.fault("config.json", status=404, headers={"X-Error-Code": "EntryNotFound"})
        self.refused(bt.BAD_INPUT, "config.json", "expected this file in the repository")

    def test_repository_without_a_model(self):
        for name, files, lack in (("org/a", {"README.md": b""}, "config.json"),
                                  ("org/b", {"config.json": b"{}"}, "model.safetensors"),
                                  ("org/c", {"config.json": b"{}", "model.gguf": b""}, "weights")):
            self.hub.add(name, files)
            self.refused(bt.BAD_INPUT, name, lack, model=name)

    def test_wrong_token(self):
        self.variables["HF_TOKEN"] = "hf_old"
        self.refuse(401, "", "Invalid credentials in Authorization header")
        self.refused(bt.BAD_INPUT, "does not know the token of HF_TOKEN", model="org/no")

    def test_refused_for_another_reason(self):
        self.refuse(403, "", "Your IP is blocked")
        self.refused(bt.BAD_INPUT, "access refused", "Your IP is blocked", model="org/no")
        self.refuse(451, "", "Unavailable")
        self.refused(bt.FAILURE, "HTTP 451", model="org/no")

    def test_busy_server_that_recovers(self):
        self.hub.fault("/api/models", status=503, times=1)
        self.hub.fault("config.json", status=500, headers={"Retry-After": "0"}, times=2)
        self.hub.fault(WEIGHTS, status=429, headers={"Retry-After": "1"}, times=1, method="HEAD")
        self.hub.fault(WEIGHTS, status=429, headers={"RateLimit": '"resolvers";r=0;t=1'}, times=1,
                       server="cdn")
        self.load()
        self.assert_complete()

    def test_busy_server_that_does_not(self):
        self.hub.fault("/api/models", status=500, headers={"Retry-After": "0"})
        self.refused(bt.FAILURE, "HTTP 500", "try again later")
        self.assertEqual(len(self.hub.requests), 5)
        self.hub.faults.clear()
        self.hub.requests.clear()
        self.hub.fault("/api/models", status=429, headers={"Retry-After": "3600"})
        self.refused(bt.FAILURE, "too many requests", "in 3600 seconds", "HF_TOKEN")
        self.assertEqual(len(self.hub.requests), 1)  # an hour is not waited

    def test_no_server(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        self.variables["HF_ENDPOINT"] = f"http://127.0.0.1:{port}"
        self.refused(bt.FAILURE, f"cannot reach 127.0.0.1:{port}", "HF_HUB_OFFLINE=1")
        self.variables["HF_ENDPOINT"] = "http://no-such-host.invalid"
        self.refused(bt.FAILURE, "cannot reach no-such-host.invalid")
        self.variables["HF_ENDPOINT"] = self.hub.url.replace("http", "https")
        self.refused(bt.FAILURE, "cannot reach 127.0.0.1", "certificates")

    def test_offline(self):
        for value in ("1", "ON", "yes", "True"):
            self.variables["HF_HUB_OFFLINE"] = value
            self.refused(bt.BAD_INPUT, "org/tiny", str(self.folder()), "HF_HUB_OFFLINE")
        self.assertEqual(self.hub.requests, [])
        self.variables["HF_HUB_OFFLINE"] = "0"
        self.billm("tokenize", "--model", TINY, "x")
        self.variables["HF_HUB_OFFLINE"] = "1"
        self.refused(bt.BAD_INPUT, "org/tiny", "weights (model.safetensors)", "HF_HUB_OFFLINE")

    def test_settings_that_cannot_be(self):
        for name, value in (("HF_ENDPOINT", "ftp://x"), ("HF_ENDPOINT", "http://a b"),
                            ("HF_ENDPOINT", "http://user:word@x"), ("HF_ENDPOINT", "http://"),
                            ("HF_TOKEN", "hf_a\r\nX-Evil: 1"), ("HF_TOKEN", "hf_\u00e4"),
                            ("HF_HUB_DOWNLOAD_TIMEOUT", "-1"), ("HF_HUB_DOWNLOAD_TIMEOUT", "1x")):
            with self.subTest(name=name, value=value):
                self.variables = {name: value}
                self.refused(bt.BAD_INPUT, name)
        self.assertEqual(self.hub.requests, [])


class Tokens(hub_testing.HubTestCase):
    def sent(self):
        """What came with the requests, by server."""
        sent = {"hub": set(), "cdn": set()}
        for request in self.hub.requests:
            sent[request.server].add(request.headers.get("Authorization"))
        return sent

    def test_only_the_hub_gets_it(self):
        self.variables["HF_TOKEN"] = "hf_secret"
        self.load()
        self.assertEqual(self.sent(), {"hub": {"Bearer hf_secret"}, "cdn": {None}})

    def test_where_it_comes_from(self):
        home = self.dir / "cache"
        home.mkdir()
        (home / "token").write_text("hf_file\n")
        (self.dir / "other").write_text("hf_other")
        cases = (({}, "hf_file"), ({"HF_TOKEN_PATH": str(self.dir / "other")}, "hf_other"),
                 ({"HF_TOKEN_PATH": str(self.dir / "none")}, None),
                 ({"HF_TOKEN": "hf_variable "}, "hf_variable"),
                 ({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None))
        for number, (variables, token) in enumerate(cases):
            with self.subTest(variables=variables):
                self.variables = variables | {"HF_HUB_CACHE": str(self.dir / f"cache-{number}")}
                self.hub.requests.clear()
                self.billm("tokenize", "--model", TINY, "x")
                self.assertEqual(self.sent()["hub"], {token and f"Bearer {token}"})


class Disk(hub_testing.HubTestCase):
    IN_NAMESPACE = 'mount -t tmpfs -o "size=$1" none "$2" && cd "$2" && eval "$3"'

    def on_disk(self, size, script):
        """Runs a shell script on a small disk of its own, where the cache is, too."""
        disk = self.dir / "disk"
        disk.mkdir(exist_ok=True)
        self.variables["HF_HUB_CACHE"] = str(disk / "hub")
        words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", self.IN_NAMESPACE,
                 "sh", str(size), disk, script]
        return subprocess.run(words, env=self.environment() | {"BILLM": bt.binary()}, timeout=120,
                              capture_output=True, text=True)

    def require_namespaces(self):
        try:
            result = self.on_disk("64k", "true")
        except FileNotFoundError:
            self.skipTest("no unshare program")
        if result.returncode != 0:
            self.skipTest("this system allows no mount: " + result.stderr.strip())

    def command(self):
        return "$BILLM " + " ".join(map(str, self.evaluate())) + " --quiet"

    def test_said_before(self):
        self.require_namespaces()
        result = self.on_disk("64k", self.command())
        self.assert_error(result, "eval", bt.FAILURE, "free disk space for org/tiny (3 files",
                          "HF_HUB_CACHE")
        self.assertEqual(self.hub.count("", "GET", "cdn"), 0)

    def test_full_in_the_middle_and_resumed(self):
        self.require_namespaces()
        self.hub.fault(WEIGHTS, server="cdn", rate=100_000, times=1)
        blob = f"hub/models--org--tiny/blobs/{self.repo.etag(WEIGHTS)}"
        # Another program takes the space while billm loads.
        script = f"""
            {self.command()} & pid=$!
            for i in $(seq 200); do [ -s {blob}.incomplete ] && break; sleep 0.05; done
            cat /dev/zero > rest 2> /dev/null
            wait $pid; code=$?
            test -s {blob}.incomplete || echo no remains
            rm rest
            {self.command()} || echo no second run
            test -s {blob} || echo no blob
            exit $code"""
        result = self.on_disk("1m", script)
        self.assert_error(result, "eval", bt.FAILURE, "No space left on device", "is kept")
        ranges = [r.headers.get("Range") for r in self.hub.requests if r.server == "cdn"]
        self.assertIsNone(ranges[0])
        self.assertRegex(ranges[1], "bytes=[1-9]")

    def test_cache_that_cannot_be_written(self):
        (self.dir / "file").write_text("")
        self.variables["HF_HUB_CACHE"] = str(self.dir / "file")
        self.refused(bt.FAILURE, str(self.dir / "file"), "HF_HUB_CACHE")


if __name__ == "__main__":
    bt.main()
