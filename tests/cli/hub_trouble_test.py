"""A hub that lies, refuses or is not there, tokens, and full disks: one clear line each, and
nothing wrong stays in the cache. Downloads that go well: hub_test.py.
"""

import os
import shutil
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt
import hub_testing
from hub_testing import TINY, WEIGHTS


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
        self.hub.fault("/api/models", raw=b"HTTP/1.1 200 OK\r\nA: " + b"b" * 90_000 + b"\r\n\r\n")
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


    def test_no_secrets_in_messages(self):
        for target in ("https://example.com/a?X-Amz-Signature=SECRET",
                       "https://user:SECRET@example.com/a"):
            with self.subTest(target=target):
                self.hub.faults.clear()
                self.hub.fault("/api/models", status=302, headers={"Location": target})
                result = self.refused(bt.FAILURE, "a redirect to ", "example.com/a)")
                self.assertNotIn("SECRET", result.stderr)
        for endpoint in ("http://user:SECRET@x", "ftp://user:SECRET@x", "user:SECRET@x",
                         "http://user:SECR?ET/SECRET@x", "http://user: SECRET@x"):
            with self.subTest(endpoint=endpoint):
                self.variables["HF_ENDPOINT"] = endpoint
                result = self.refused(bt.BAD_INPUT, "HF_ENDPOINT: expected", "...@x")
                self.assertNotIn("SECR", result.stderr)


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
        for name, files, missing in (("org/a", {"README.md": b""}, "config.json"),
                                  ("org/b", {"config.json": b"{}"}, "model.safetensors"),
                                  ("org/c", {"config.json": b"{}", "model.gguf": b""}, "weights")):
            self.hub.add(name, files)
            self.refused(bt.BAD_INPUT, name, missing, model=name)

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

    def test_long_waits_are_told(self):
        for options, told in (((), 1), (("--quiet",), 0)):
            shutil.rmtree(self.cache, ignore_errors=True)
            self.hub.fault("/api/models", status=429, headers={"Retry-After": "5"}, times=1)
            self.hub.fault("/api/models", status=503, headers={"Retry-After": "1"}, times=1)
            result = self.billm("tokenize", "--model", TINY, "x", *options)
            line = f"billm: info: {self.hub.url[7:]} answers 429: waiting 5 s\n"
            self.assertEqual(result.stderr.count(line), told, result.stderr)
            self.assertEqual(result.stderr.count("waiting"), told, result.stderr)

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
                 ({"HUGGING_FACE_HUB_TOKEN": "hf_old"}, "hf_old"),
                 ({"HF_TOKEN": "hf_new", "HUGGING_FACE_HUB_TOKEN": "hf_old"}, "hf_new"),
                 ({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None))
        for number, (variables, token) in enumerate(cases):
            with self.subTest(variables=variables):
                self.variables = variables | {"HF_HUB_CACHE": str(self.dir / f"cache-{number}")}
                self.hub.requests.clear()
                self.billm("tokenize", "--model", TINY, "x")
                self.assertEqual(self.sent()["hub"], {token and f"Bearer {token}"})


class Disk(bt.SmallDisk, hub_testing.HubTestCase):
    def setUp(self):
        super().setUp()
        self.disk = self.dir / "disk"

    def on_disk(self, size, script):
        """On a small disk, where the cache is, too."""
        self.variables["HF_HUB_CACHE"] = str(self.disk / "hub")
        return super().on_disk(size, script)

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
        self.assert_error(result, "eval", bt.FAILURE, "No space left on device", "free some space",
                          "is kept")
        ranges = [r.headers.get("Range") for r in self.hub.requests if r.server == "cdn"]
        self.assertIsNone(ranges[0])
        self.assertRegex(ranges[1], "bytes=[1-9]")

    def test_remains_that_are_no_file(self):
        self.partial().parent.mkdir(parents=True)
        other = self.dir / "other"
        other.write_text("of another")
        for make in (Path.mkdir, lambda path: os.mkfifo(path), lambda path: path.symlink_to(other)):
            make(self.partial())
            result = self.fails(bt.FAILURE, *self.evaluate(),
                                needles=[f"{self.partial()}: cannot write", "remove it"])
            self.assertNotIn("free some space", result.stderr)
            (self.partial().rmdir if self.partial().is_dir() else self.partial().unlink)()
        self.assertEqual(other.read_text(), "of another")
        self.load()
        self.assert_complete()

    def test_cache_that_cannot_be_written(self):
        (self.dir / "file").write_text("")
        self.variables["HF_HUB_CACHE"] = str(self.dir / "file")
        self.refused(bt.FAILURE, str(self.dir / "file"), "HF_HUB_CACHE")


if __name__ == "__main__":
    bt.main()
