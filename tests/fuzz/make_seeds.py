#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets whose files have real writers: torch.save, numpy, billm.

Usage: make_seeds.py BILLM_BINARY

Writes below tests/fuzz/seeds; the files are committed, so this is run only to add to them. The other
seeds were written by hand or found by the fuzzers.
"""

import json
import os
import sys
import zipfile
from pathlib import Path

os.environ["BILLM_BINARY"] = sys.argv[1]
TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "support"))
import billm_testing as bt
import numpy as np
import torch

SEEDS = TESTS / "fuzz" / "seeds"


def torch_files():
    directory = SEEDS / "torch_file"
    base = torch.arange(6, dtype=torch.float16)
    small = {"a": base.view(2, 3), "b": base[2:4], "c": torch.tensor(2.0)}
    kinds = {"p": torch.nn.Parameter(torch.ones(2)), "u": torch.ones(3).to(torch.uint16),
             "e": torch.zeros(0, 2)}
    torch.manual_seed(0)
    for name, tensors, protocol in (("small", small, 2), ("kinds", kinds, 1),
                                    ("state_dict", torch.nn.Linear(2, 3).state_dict(), 4)):
        path = directory / f"{name}.bin"
        torch.save(tensors, path, pickle_protocol=protocol)
        with zipfile.ZipFile(path) as archive:
            pickle = archive.read(f"{name}/data.pkl")
        (SEEDS / "state_dict_pickle" / f"{name}.pkl").write_bytes(pickle)


def npy_files():
    for name, array in (("int32", np.arange(6, dtype=np.int32).reshape(2, 3)),
                        ("int64", np.arange(5)), ("float", np.ones(3))):
        np.save(SEEDS / "npy" / f"{name}.npy", array)
    with open(SEEDS / "npy" / "version2.npy", "wb") as file:
        np.lib.format.write_array(file, np.arange(3, dtype=np.int32), version=(2, 0))


class Packed(bt.TestCase):
    """One shard per kind of layer, of a model with one block of a few hundred weights a linear."""

    METHODS = {
        "billm": ("--method", "billm"),
        "stbllm": ("--method", "stbllm", "--nm", "4:8"),
        "arb": ("--method", "arb"),
        "pbllm": ("--method", "pbllm"),
        "gptq": ("--method", "gptq", "--bits", "2"),
        "trellis": ("--method", "trellis", "--bits", "1.25", "--rotate", "none"),
        "trellis_rotated": ("--method", "trellis", "--bits", "0.75"),
        "rtn": ("--method", "rtn"),
    }

    def runTest(self):
        model = bt.make_tiny_llama(self.dir / "model", hidden=16, intermediate=24, blocks=1)
        for name, arguments in self.METHODS.items():
            out = self.dir / name
            if "trellis" not in arguments:
                arguments += ("--block-size", "16")
            self.billm("quantize", "--model", model, "--calib", self.calibration(), "--out", out,
                       *arguments)
            shard = out / "model-00001-of-00002.safetensors"
            (SEEDS / "packed_shard" / f"{name}.safetensors").write_bytes(shard.read_bytes())
        model = bt.make_tiny_llama(self.dir / "few words", hidden=16, intermediate=24, blocks=1,
                                   vocab=24)
        rows = self.dir / "rows"
        self.billm("quantize", "--model", model, "--calib", self.calibration(vocab=24), "--method",
                   "rtn", "--embedding-bits", "4", "--head-bits", "8", "--out", rows)
        shard = (rows / "model-00002-of-00002.safetensors").read_bytes()
        (SEEDS / "packed_shard" / "integer_rows.safetensors").write_bytes(shard)
        (SEEDS / "manifest" / "rtn.json").write_bytes((out / "manifest.json").read_bytes())
        index = json.loads((out / "model.safetensors.index.json").read_text())
        (SEEDS / "shard_index" / "packed.json").write_text(json.dumps(index))


if __name__ == "__main__":
    for target in "torch_file state_dict_pickle npy packed_shard manifest shard_index".split():
        (SEEDS / target).mkdir(exist_ok=True)
    torch_files()
    npy_files()
    bt.unittest.TextTestRunner().run(Packed())
