"""What the tests of the real binary share: running it, tiny models, errors checked in one way.

Scripts of tests/cli and tests/e2e import this file, define unittest cases and end with main().
ctest passes BILLM_BINARY and BILLM_PYTHON. A script that cannot run prints "SKIP: reason" and exits
with 77; where data is missing and BILLM_REQUIRE_DATA=1 it fails instead. Needs numpy, nothing else.
"""

import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
READ_PACKED = ROOT / "tools" / "read_packed.py"
DEMO_TEXT = ROOT / "configs" / "demo-text"
SKIP_CODE = 77

# Exit codes of include/billm/base/error.h.
FAILURE, USAGE, BAD_INPUT = 1, 2, 3


def skip(reason, data=False):
    """Ends the script as skipped; with `data`, as failed where BILLM_REQUIRE_DATA=1."""
    if data and os.environ.get("BILLM_REQUIRE_DATA") == "1":
        sys.exit(f"FAILED: {reason}, and BILLM_REQUIRE_DATA=1")
    print(f"SKIP: {reason}")
    sys.exit(SKIP_CODE)


def binary():
    path = os.environ.get("BILLM_BINARY", "")
    if not os.access(path, os.X_OK):
        sys.exit(f"BILLM_BINARY={path}: expected the path of billm")
    return path


def demo_model():
    path = Path(os.environ.get("BILLM_DEMO_MODEL", ""))
    if not (path / "config.json").is_file():
        skip("BILLM_DEMO_MODEL: no demo model there (tools/make_demo_model.py)", data=True)
    return path


def data_directory():
    """Skips the case, or fails it where BILLM_REQUIRE_DATA=1, if there is none."""
    path = Path(os.environ.get("BILLM_DATA_DIR", ""))
    if not (path / "tokenizers").is_dir():
        if os.environ.get("BILLM_REQUIRE_DATA") == "1":
            raise AssertionError("BILLM_DATA_DIR: no tokenizers there, and BILLM_REQUIRE_DATA=1")
        raise unittest.SkipTest("BILLM_DATA_DIR: no tokenizers there")
    return path


def python():
    return os.environ.get("BILLM_PYTHON") or sys.executable


def support(script, *arguments):
    """A script of tests/support, run by BILLM_PYTHON through cached_reference.py."""
    folder = ROOT / "tests" / "support"
    return subprocess.run([python(), folder / "cached_reference.py", folder / script,
                           *map(str, arguments)], capture_output=True, text=True)


def tiny_models(directory, names):
    """Copies of the models `names` of make_tiny_model.py in `directory`: from ctest's fixture
    (BILLM_TINY_MODELS), else made here. Skips without transformers."""
    fixture = Path(os.environ.get("BILLM_TINY_MODELS") or "none")
    if (fixture / "names.txt").is_file():
        for name in names:
            shutil.copytree(fixture / name, directory / name)
        return
    made = support("make_tiny_model.py", directory, *names)
    if "No module named" in made.stderr:
        skip("BILLM_PYTHON: no transformers there", data=True)
    if made.returncode != 0:
        raise RuntimeError(made.stderr[-2000:])


def main():
    """unittest.main(), except that a script all of whose cases were skipped counts as skipped."""
    binary()
    program = unittest.main(module="__main__", exit=False, verbosity=2)
    result = program.result
    if result.wasSuccessful() and result.skipped and len(result.skipped) == result.testsRun:
        skip(result.skipped[0][1])
    sys.exit(0 if result.wasSuccessful() and result.testsRun > 0 else 1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestCase(unittest.TestCase):
    """Every case has a directory `self.dir` of its own, which holds its BILLM_HOME."""

    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(prefix="billm-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.home = self.dir / "home"

    def environment(self):
        """Nothing of the user's: no data directory, no cache of models, no network, no torchrun."""
        users = ("BILLM_", "HF_", "HUGGINGFACE_", "HUGGING_FACE_", "TRANSFORMERS_", "WORLD_SIZE",
                 "RANK", "LOCAL_", "MASTER_", "TORCHELASTIC_")
        environment = {k: v for k, v in os.environ.items()
                       if not k.startswith(users) and not k.lower().endswith("_proxy")}
        return environment | {"BILLM_HOME": str(self.home), "HF_HOME": str(self.dir / "no-cache"),
                              "HF_HUB_OFFLINE": "1"}

    def start(self, *arguments, **options):
        return subprocess.Popen([binary(), *map(str, arguments)], env=self.environment(),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                **options)

    def run_billm(self, *arguments, timeout=300, variables=None, **options):
        """CompletedProcess with text output. A crash (a signal) is a failure of the test."""
        result = subprocess.run([binary(), *map(str, arguments)],
                                env=self.environment() | (variables or {}),
                                capture_output=True, text=True, errors="replace", timeout=timeout,
                                **options)
        self.assertGreaterEqual(result.returncode, 0, f"died of a signal: {result}")
        return result

    def billm(self, *arguments, **options):
        """Runs and expects success; the result."""
        result = self.run_billm(*arguments, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def report(self, *arguments, **options):
        """Runs with --json - and expects success; the parsed report."""
        return json.loads(self.billm(*arguments, "--quiet", "--json", "-", **options).stdout)

    def group(self, size, *arguments, each=None, port=None):
        """Starts billm in several processes that work together; `each`: further arguments by rank."""
        common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                  "MASTER_PORT": str(port or free_port())}
        started = []
        for rank in range(size):
            more = (each or {}).get(rank, [])
            started.append(subprocess.Popen(
                [binary(), *map(str, [*arguments, *more])],
                env=self.environment() | common | {"RANK": str(rank)}, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True))
            self.addCleanup(started[-1].kill)
        return started

    def finish(self, started, timeout=240):
        """(exit status, stdout, stderr) by rank."""
        results = []
        for process in started:
            out, err = process.communicate(timeout=timeout)
            results.append((process.returncode, out, err))
        return results

    def assert_error(self, result, command, code, *needles):
        """One line on stderr, "billm COMMAND: error: ...", with every one of `needles` in it."""
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        prefix = f"billm {command}: error: " if command else "billm: error: "
        self.assertTrue(result.stderr.startswith(prefix), result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertTrue(result.stderr.endswith("\n"), result.stderr)
        self.assertNotIn("internal error", result.stderr)
        for needle in needles:
            self.assertIn(needle, result.stderr)

    def fails(self, code, *arguments, needles=(), **options):
        """Runs with --quiet and expects that error; the result."""
        result = self.run_billm(*arguments, "--quiet", **options)
        self.assert_error(result, arguments[0], code, *needles)
        return result

    def calibration(self, vocab=300, rows=2, length=64, seed=1):
        """A .npy with random tokens."""
        path = self.dir / f"tokens-{vocab}-{rows}-{length}-{seed}.npy"
        tokens = np.random.default_rng(seed).integers(0, vocab, (rows, length), dtype=np.int32)
        np.save(path, tokens)
        return path


class SharedTestCase(TestCase):
    """Cases that share what is made once: setUpClass makes it with `maker`, whose directory stays until
    the last case has run."""

    @classmethod
    def setUpClass(cls):
        cls.maker = cls()
        cls.maker.setUp()
        cls.addClassCleanup(cls.maker.doCleanups)


class SmallDisk:
    """For a TestCase: the directory self.disk as a small file system of its own, where this system
    allows to mount one."""

    # $1: size of the disk, $2: where to mount it, $3: a shell script run there.
    IN_NAMESPACE = 'mount -t tmpfs -o "size=$1" none "$2" && cd "$2" && eval "$3"'

    def on_disk(self, size, script):
        """Runs a shell script in it; $BILLM is the program."""
        self.disk.mkdir(exist_ok=True)
        return subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
                               self.IN_NAMESPACE, "sh", str(size), self.disk, script],
                              env=self.environment() | {"BILLM": binary()}, timeout=300,
                              capture_output=True, text=True)

    def require_namespaces(self):
        try:
            result = self.on_disk("64k", "true")
        except FileNotFoundError:
            self.skipTest("no unshare program")
        if result.returncode != 0:
            self.skipTest("this system allows no mount: " + result.stderr.strip())


def digests(directory):
    """{file name: SHA-256} of a directory without folders."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(directory).iterdir()}


# --- tiny models ----------------------------------------------------------------------------------

DTYPES = {np.dtype("float16"): "F16", np.dtype("float32"): "F32", np.dtype("int32"): "I32",
          np.dtype("uint8"): "U8"}


def safetensors_parts(tensors, metadata=None):
    """(header as a dictionary, data). The format: include/billm/checkpoint/safetensors.h."""
    header = {"__metadata__": metadata} if metadata else {}
    data = bytearray()
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": DTYPES[array.dtype], "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return header, bytes(data)


def write_parts(path, header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_safetensors(path, tensors, metadata=None):
    write_parts(path, *safetensors_parts(tensors, metadata))


def read_parts(path):
    raw = Path(path).read_bytes()
    (size,) = struct.unpack_from("<Q", raw)
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def tensors(directory):
    """{name: (its bytes, shape)} of all shards."""
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        header, data = read_parts(path)
        found |= {name: (data[slice(*entry["data_offsets"])], entry["shape"])
                  for name, entry in header.items() if name != "__metadata__"}
    return found


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def tiny_tokenizer():
    """tokenizer.json of a byte-level BPE with 300 tokens: an end mark, 256 bytes, 43 merges."""
    alphabet = byte_alphabet()
    vocab = {"<|end|>": 0} | {alphabet[b]: b + 1 for b in range(256)}
    space = alphabet[32]
    merges = []
    for left, right in [(a, b) for a in (space, "t", "i", "a", "e", "o", "s", "r")
                        for b in ("t", "h", "n", "a", "s", "r")]:
        if len(vocab) < 300 and left + right not in vocab:
            vocab[left + right] = len(vocab)
            merges.append([left, right])
    end = {"id": 0, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end],
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
            "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                      "merges": merges}}


def tiny_config(hidden=64, intermediate=112, blocks=2, vocab=300, heads=4, kv_heads=2, tied=False):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
            "intermediate_size": intermediate, "num_hidden_layers": blocks, "vocab_size": vocab,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "hidden_act": "silu", "tie_word_embeddings": tied, "bos_token_id": 0,
            "eos_token_id": 0, "torch_dtype": "float16"}


def linear_shapes(config):
    """{suffix: (out, in)} of the linears of a block."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    return {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden), "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner)}


def tiny_tensors(config, seed=0):
    """Random fp16 weights with a few columns that matter more than the others."""
    random = np.random.default_rng(seed)

    def matrix(rows, cols):
        scale = np.where(random.random(cols) < 0.05, 0.6, 0.15)
        return (random.standard_normal((rows, cols)) * scale).astype(np.float16)

    def norm():
        return random.uniform(0.5, 1.5, config["hidden_size"]).astype(np.float16)

    tensors = {"model.embed_tokens.weight": matrix(config["vocab_size"], config["hidden_size"])}
    for block in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{block}."
        for suffix, shape in linear_shapes(config).items():
            tensors[f"{prefix}{suffix}.weight"] = matrix(*shape)
        tensors[prefix + "input_layernorm.weight"] = norm()
        tensors[prefix + "post_attention_layernorm.weight"] = norm()
    tensors["model.norm.weight"] = norm()
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(config["vocab_size"], config["hidden_size"])
    return tensors


def make_tiny_llama(directory, seed=0, change=None, **sizes):
    """A LLaMA checkpoint in one safetensors file. change(config, tensors) may spoil it first."""
    directory = Path(directory)
    directory.mkdir(parents=True)
    config = tiny_config(**sizes)
    tensors = tiny_tensors(config, seed)
    if change:
        change(config, tensors)
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    (directory / "tokenizer.json").write_text(json.dumps(tiny_tokenizer()))
    write_safetensors(directory / "model.safetensors", tensors, {"format": "pt"})
    return directory


def half_bits(count, seed=0):
    """fp16 in +-[2^-6, 2^-5) as bytes."""
    bits = np.random.default_rng(seed).integers(0, 1 << 16, count, dtype=np.uint16)
    return ((bits & 0x83FF) | (9 << 10)).astype("<u2").tobytes()


def write_shard(path, shapes, data):
    """All tensors of fp16; `data` holds them one behind the other."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.write(memoryview(data)[:offset])


def make_sharded_llama(directory, **sizes):
    """A large checkpoint, quickly: random bits with one exponent, the same in every block; a shard
    for each block and one for the rest. Its configuration."""
    config = tiny_config(**sizes)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(json.dumps(tiny_tokenizer()))
    hidden, vocab, blocks = config["hidden_size"], config["vocab_size"], config["num_hidden_layers"]
    norm = struct.pack("<e", 1.0) * hidden
    weights = sum(rows * cols for rows, cols in linear_shapes(config).values())
    data = norm + norm + half_bits(weights)
    index = {}

    def add(number, shapes, data):
        name = f"model-{number:05}-of-{blocks + 1:05}.safetensors"
        write_shard(directory / name, shapes, data)
        index.update(dict.fromkeys(shapes, name))

    for block in range(blocks):
        prefix = f"model.layers.{block}."
        shapes = {prefix + "input_layernorm.weight": (hidden,),
                  prefix + "post_attention_layernorm.weight": (hidden,)}
        shapes |= {f"{prefix}{name}.weight": shape
                   for name, shape in linear_shapes(config).items()}
        add(block + 1, shapes, data)
    shapes = {"model.norm.weight": (hidden,), "model.embed_tokens.weight": (vocab, hidden)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    add(blocks + 1, shapes, norm + half_bits(2 * vocab * hidden, seed=1))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return config
