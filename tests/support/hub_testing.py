"""What the tests of downloads share: a fake hub with a tiny model, and a cache of their own."""

import json
import os
import sys
import unittest
from pathlib import Path

import billm_testing as bt
from fake_hub import FakeHub

TINY = "org/tiny"
WEIGHTS = "model.safetensors"


def hub_library():
    """huggingface_hub, whose cache ours has to be; skips the case where it is missing."""
    try:
        import huggingface_hub
    except ImportError as error:
        if os.environ.get("BILLM_REQUIRE_DATA") == "1":
            raise
        raise unittest.SkipTest(f"no huggingface_hub: {error}") from error
    return huggingface_hub


class HubTestCase(bt.TestCase):
    """self.hub holds org/tiny with its weights as a large file; self.cache is what billm writes."""

    def setUp(self):
        super().setUp()
        self.hub = self.enterContext(FakeHub())
        self.cache = self.dir / "cache" / "hub"
        self.variables = {}
        directory = bt.make_tiny_llama(self.dir / "original")
        self.files = {path.name: path.read_bytes() for path in directory.iterdir()}
        self.repo = self.hub.add(TINY, self.files, lfs=[WEIGHTS])
        self.tokens = self.calibration()

    def environment(self):
        environment = super().environment()
        del environment["HF_HUB_OFFLINE"]
        return environment | {"HF_HOME": str(self.dir / "cache"), "HF_ENDPOINT": self.hub.url,
                              "HF_HUB_DOWNLOAD_TIMEOUT": "5"} | self.variables

    def folder(self, name=TINY, kind="models"):
        return self.cache / f"{kind}--{name.replace('/', '--')}"

    def snapshot(self, repo=None):
        repo = repo or self.repo
        return self.folder(repo.id, repo.kind) / "snapshots" / repo.commit

    def blob(self, file=WEIGHTS, repo=None):
        repo = repo or self.repo
        return self.folder(repo.id, repo.kind) / "blobs" / repo.etag(file)

    def partial(self, file=WEIGHTS):
        return Path(f"{self.blob(file)}.incomplete")

    def evaluate(self, model=TINY):
        """Arguments of a command that needs the whole model and takes no time."""
        return "eval", "--model", model, "--ppl", self.tokens, "--windows", "1", "--threads", "1"

    def load(self, model=TINY, **options):
        return self.billm(*self.evaluate(model), **options)

    def refused(self, code, *needles, model=TINY):
        """The download fails with one line and leaves no wrong file."""
        result = self.fails(code, *self.evaluate(model), needles=needles)
        self.assert_nothing_wrong()
        return result

    def assert_nothing_wrong(self):
        """Every blob is what its name says, every link leads to one."""
        for repo in self.hub.repos.values():
            whole = {repo.etag(path): data for path, data in repo.files.items()}
            for blob in (self.folder(repo.id, repo.kind) / "blobs").glob("*"):
                if blob.suffix == ".incomplete":
                    self.assertIn(blob.stem, whole)
                else:
                    self.assertEqual(blob.read_bytes(), whole[blob.name])
            for path in (self.folder(repo.id, repo.kind) / "snapshots").rglob("*"):
                if not path.is_dir():
                    self.assertTrue(path.is_symlink(), path)
                    self.assertTrue(path.exists(), path)

    def assert_complete(self, repo=None):
        repo = repo or self.repo
        for file, data in repo.files.items():
            self.assertEqual((self.snapshot(repo) / file).read_bytes(), data, file)
        self.assertEqual(list(self.folder(repo.id, repo.kind).rglob("*.incomplete")), [])
        self.assert_nothing_wrong()


def sharded(files, shards=3):
    """The files of a model with its tensors spread over `shards` files and an index."""
    import struct

    raw = files[WEIGHTS]
    (size,) = struct.unpack_from("<Q", raw)
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    result = {name: content for name, content in files.items() if name != WEIGHTS}
    names = [name for name in header if name != "__metadata__"]
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part, body = {}, b""
        for name in names[i::shards]:
            begin, end = header[name]["data_offsets"]
            part[name] = header[name] | {"data_offsets": [len(body), len(body) + end - begin]}
            body += data[begin:end]
            weight_map[name] = file
        text = json.dumps(part).encode()
        result[file] = struct.pack("<Q", len(text)) + text + body
    result["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return result
