"""Names of models on the hub: downloads into the HuggingFace cache, whole, resumed, by two runs at
once, against a hub that behaves like the real one. The cache is compared with huggingface_hub's.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import billm_testing as bt
import hub_testing
from hub_testing import TINY, WEIGHTS

OTHERS = {"README.md": b"#", "original/params.json": b"{}", "consolidated.00.pth": b"x" * 100,
          "consolidated.safetensors": b"y" * 100, "model.gguf": b"g",
          "pytorch_model.bin": b"p" * 99, "tf_model.h5": b"h", "flax_model.msgpack": b"m",
          "onnx/model.onnx": b"o"}


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


class HalfFilled(hub_testing.HubTestCase):
    """Snapshots of which other programs, or runs that were killed, left a part: the tokenizer that
    is there must not pass for the whole one."""

    TEXT = "this is<|end|>"
    MARKS = ["added_tokens.json", "special_tokens_map.json", "tokenizer.json"]

    def setUp(self):
        super().setUp()
        model = json.loads(self.files["tokenizer.json"])["model"]
        merges = "".join(" ".join(pair) + "\n" for pair in model["merges"])
        self.vocabulary = {"vocab.json": json.dumps(model["vocab"]).encode(),
                           "merges.txt": b"#version: 0.2\n" + merges.encode()}
        ends = dict.fromkeys(["bos_token", "eos_token", "unk_token"], "<|end|>")
        config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True} | ends
        self.files |= self.vocabulary | {"tokenizer_config.json": json.dumps(config).encode()}

    def half(self, name, files, kept):
        """A repository with `files`, of which the cache has `kept`; (the repository, the ids)."""
        repo = self.hub.add(name, files, lfs=[WEIGHTS])
        whole = self.dir / "whole" / repo.commit
        whole.mkdir(parents=True)
        for file, data in files.items():
            (whole / file).write_bytes(data)
        self.load(name)
        for file in set(files) - set(kept):
            (self.snapshot(repo) / file).unlink()
        shutil.rmtree(self.folder(name) / ".no_exist", ignore_errors=True)
        self.hub.requests.clear()
        return repo, self.billm("tokenize", "--model", whole, self.TEXT).stdout

    def tokenize(self, repo):
        return self.billm("tokenize", "--model", repo.id, self.TEXT)

    def test_the_rest_is_loaded(self):
        slow = {name: data for name, data in self.files.items() if name != "tokenizer.json"}
        for name, files, missing in (("org/fast", self.files, ["tokenizer.json"]),
                                     ("org/slow", slow, ["tokenizer_config.json"])):
            with self.subTest(name=name):
                repo, ids = self.half(name, files, ["config.json", *self.vocabulary])
                self.assertEqual(self.tokenize(repo).stdout, ids)
                for file in missing:
                    self.assertTrue((self.snapshot(repo) / file).is_file(), file)
                self.assertFalse((self.snapshot(repo) / WEIGHTS).exists())
                self.hub.requests.clear()  # that was the last question
                self.assertEqual(self.tokenize(repo).stdout, ids)
                self.assertEqual(self.hub.requests, [])
                self.load(name)
                self.assert_complete(repo)
        marks = self.folder("org/slow") / ".no_exist" / repo.commit
        self.assertEqual(sorted(p.name for p in marks.iterdir()), self.MARKS)

    def test_weights_without_a_tokenizer(self):
        repo, ids = self.half("org/fast", self.files, ["config.json", WEIGHTS])
        self.load(repo.id)
        self.assert_complete(repo)
        self.assertEqual(self.tokenize(repo).stdout, ids)

    def test_without_the_hub(self):
        repo, ids = self.half("org/fast", self.files, set(self.files) - {"tokenizer.json"})
        missing = "tokenizer.json, special_tokens_map.json, added_tokens.json"
        self.variables = {"HF_HUB_OFFLINE": "1"}
        result = self.tokenize(repo)
        self.assertNotEqual(result.stdout, ids)  # hence a warning
        self.assertIn(f"tokenizer files may be missing from the cache ({missing})", result.stderr)
        self.assertEqual(result.stderr.count("billm: warning"), 1)
        quantize = self.billm("quantize", "--model", repo.id, "--method", "rtn", "--calib",
                              self.tokens)
        self.assertEqual(quantize.stderr.count("tokenizer files may be missing"), 1)
        self.assertEqual(self.hub.requests, [])

    def test_a_whole_model_needs_no_network(self):
        repo, _ = self.half("org/fast", self.files, ["config.json", WEIGHTS])
        self.variables = {"HF_ENDPOINT": "http://127.0.0.1:9"}
        result = self.load(repo.id)
        self.assertIn(f"warning: org/fast@{repo.commit}: cannot reach 127.0.0.1:9", result.stderr)
        self.assertIn("the cached model is used", result.stderr)
        self.fails(bt.FAILURE, "tokenize", "--model", repo.id, "x", needles=["cannot reach"])
        self.variables = {}
        self.hub.fault("/api/models", status=503, headers={"Retry-After": "0"})
        self.assertIn("HTTP 503", self.load(repo.id).stderr)
        self.hub.faults.clear()
        self.hub.fault("tokenizer.json", status=503, headers={"Retry-After": "0"})
        self.refused(bt.FAILURE, "HTTP 503", model=repo.id)  # it is known to be there

    def test_cache_that_takes_no_marks(self):
        files = {name: data for name, data in self.files.items() if name != "tokenizer.json"}
        repo, ids = self.half("org/slow", files, list(files))
        (self.folder(repo.id) / ".no_exist").write_text("")
        result = self.tokenize(repo)
        self.assertEqual(result.stdout, ids)
        self.assertIn("the hub will be asked again", result.stderr)

    def test_config_is_linked_last(self):
        self.load()
        links = [(path.lstat().st_ctime_ns, path.name) for path in self.snapshot().iterdir()]
        self.assertEqual(max(links)[1], "config.json")


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
        code = ("import huggingface_hub as h, json, sys; "
                "h.snapshot_download(**json.loads(sys.argv[1]))")
        arguments = [sys.executable, "-c", code, json.dumps({"repo_id": TINY} | more)]
        environment = self.environment() | {"HF_HUB_DISABLE_XET": "1"}
        subprocess.run(arguments, check=True, env=environment, timeout=120, capture_output=True)

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


if __name__ == "__main__":
    bt.main()
