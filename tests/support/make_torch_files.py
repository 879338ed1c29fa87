#!/usr/bin/env python3
"""Files of torch.save for the tests of the .bin reader.

Usage: make_torch_files.py good|refused OUTPUT_DIRECTORY [CASE...]

good     CASE.bin by torch.save, and CASE.safetensors with the same tensors by the safetensors
         library
refused  CASE.bin that must not be read, and CASE.txt with a part of the message that must say why
"""

import io
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

torch.manual_seed(0)


class TiedModel(torch.nn.Module):
    """state_dict() is an OrderedDict with the attribute _metadata, as models are saved."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(5, 4)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.norm = torch.nn.LayerNorm(4)


def every_dtype():
    random = torch.randint(0, 256, (64,), dtype=torch.uint8)
    names = ("uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 bfloat16 float32 float64 "
             "complex64 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu")
    tensors = {name: random.view(getattr(torch, name)).clone() for name in names.split()}
    return tensors | {"bool": random > 100}


def views():
    base = torch.arange(100, dtype=torch.float16)
    cube = torch.arange(24, dtype=torch.int32).reshape(2, 3, 4)
    return {"all": base, "part": base[7:29], "matrix": base[4:16].view(3, 4), "one": base[99],
            "end": base[100:], "slab": cube[1], "row": cube[1, 2], "row and ones": cube[1:, 2:],
            "column of one": cube[:1, 0, :1].transpose(0, 1)}


def shapes():
    return {"scalar": torch.tensor(2.5), "empty": torch.zeros(0), "empty matrix": torch.zeros(3, 0),
            "empty, other strides": torch.zeros(4, 0, 5).transpose(0, 2),
            "ones": torch.zeros(1, 1, 1), "ones, strides": torch.empty_strided((1, 3), (77, 1)).fill_(4),
            "rank 8": torch.arange(4).reshape(1, 2, 1, 1, 1, 2, 1, 1)}


def wide():
    """A storage of more than 2^16 elements and names of every length up to 300."""
    return {"n" * n: torch.full((3,), n) for n in range(1, 300, 13)} | {
        "big": torch.arange(70000, dtype=torch.int16), "\u00e9\U0001f600 \"x\"": torch.ones(1)}


def good_cases():
    """(name, object for torch.save, its keyword arguments)"""
    weights = {"a": torch.randn(3, 5), "b": torch.randn(2).half()}
    yield "plain", weights, {}
    yield "ordered", OrderedDict(weights), {}
    yield "parameters", {k: torch.nn.Parameter(v) for k, v in weights.items()}, {}
    yield "no gradient", {"a": torch.nn.Parameter(torch.ones(2), requires_grad=False)}, {}
    yield "state_dict", TiedModel().state_dict(), {}
    yield "tied parameters", dict(TiedModel().named_parameters(remove_duplicate=False)), {}
    yield "nothing", {}, {}
    yield "dtypes", every_dtype(), {}
    yield "views", views(), {}
    yield "shapes", shapes(), {}
    yield "wide", wide(), {}
    yield "2500 tensors", {f"layers.{i}.weight": torch.full((2,), i) for i in range(2500)}, {}
    for protocol in (1, 2, 3, 4, 5):
        both = {**weights, **views(), "flag": torch.tensor(True), "u": torch.ones(3).to(torch.uint16)}
        yield f"protocol {protocol}", both, {"pickle_protocol": protocol}
    yield "protocol 4, state_dict", TiedModel().state_dict(), {"pickle_protocol": 4}
    yield "protocol 5, wide", wide(), {"pickle_protocol": 5}
    yield "no checksums", weights, {}
    # More entries than the old form of a zip archive can count.
    yield "66000 tensors", {str(i): torch.tensor(i) for i in range(66000)}, {}


def write_good(output, wanted):
    for name, tensors, options in good_cases():
        if wanted and name not in wanted:
            continue
        torch.serialization.set_crc32_options(name != "no checksums")
        torch.save(tensors, output / f"{name}.bin", **options)
        # The reference wants no shared memory and contiguous tensors.
        save_file({k: v.detach().clone(memory_format=torch.contiguous_format)
                   for k, v in tensors.items()}, output / f"{name}.safetensors")


# --- files that must be refused -------------------------------------------------------------------

class Calls:
    """Pickled, it calls `function` with `arguments` where it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class WithState:
    def __init__(self, state):
        self.__dict__.update(state)


def archive(entries, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return out.getvalue()


def with_pickle(data, **more):
    return archive({"m/data.pkl": data, "m/version": "3\n", "m/byteorder": "little"} | more)


def saved(thing, **options):
    out = io.BytesIO()
    torch.save(thing, out, **options)
    return out.getvalue()


def edited(raw, edit):
    """The entries of an archive changed by `edit`, in a new archive."""
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    edit(entries)
    return archive(entries)


def in_pickle(raw, old, new):
    def edit(entries):
        assert entries["archive/data.pkl"].count(old) == 1, old
        entries["archive/data.pkl"] = entries["archive/data.pkl"].replace(old, new)
    return edited(raw, edit)


def refused_cases():
    """(name, bytes, part of the message)"""
    evil = "/tmp/billm-test-must-not-exist"
    for protocol in (0, 1, 2, 3, 4, 5):
        opcode = "STACK_GLOBAL" if protocol >= 4 else "GLOBAL"
        calls = {
            "os.system": (Calls(os.system, f"touch {evil}"), f"{opcode} of posix.system at byte"),
            "eval": (Calls(eval, f"open('{evil}', 'w')"), "eval at byte"),
            "getattr": (Calls(getattr, "text", "upper"), "getattr at byte"),
        }
        for name, (thing, needle) in calls.items():
            yield (f"{name}, protocol {protocol}",
                   with_pickle(pickle.dumps({"a": thing}, protocol=protocol)),
                   needle if protocol > 0 else "opcode DICT at byte")
    yield "code", with_pickle(pickle.dumps({"a": Calls(os.system, "true")})), "this file would run code"
    yield "class", with_pickle(pickle.dumps({"a": WithState({"x": 1})}, protocol=2)), "is not allowed"
    yield "by torch.save", saved({"a": torch.ones(2), "b": Calls(os.system, "true")}), "posix.system"
    yield "module", saved(torch.nn.Linear(2, 3)), "torch.nn.modules.linear.Linear"
    yield "optimizer", saved(torch.optim.Adam([torch.ones(2, requires_grad=True)]).state_dict()), "not allowed"
    yield "list", saved([torch.ones(2)]), "EMPTY_LIST"
    yield "tensor", saved(torch.ones(2)), "expected as the file's object a dict, got a tensor"
    yield "number as key", saved({1: torch.ones(2)}), "expected as name of a tensor a string, got a number"
    yield "wrapped", saved({"state_dict": {"a": torch.ones(2)}}), "state_dict: expected a tensor, got a dict"
    yield "step beside", saved({"a": torch.ones(2), "step": 3}), "step: expected a tensor, got a number"
    yield "transposed", saved({"a": torch.ones(2, 3).T}), "expected contiguous tensors"
    yield "expanded", saved({"a": torch.ones(1).expand(4)}), "expected contiguous tensors"
    yield "strided", saved({"a": torch.ones(8)[::2]}), "expected contiguous tensors"
    yield "complex128", saved({"a": torch.ones(2, dtype=torch.complex128)}), "torch.ComplexDoubleStorage"
    yield "sparse", saved({"a": torch.eye(3).to_sparse()}), "torch._utils._rebuild_sparse_tensor"
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    yield "quantized", saved({"a": quantized}), "torch._utils._rebuild_qtensor"
    yield "conjugate", saved({"a": torch.ones(2, dtype=torch.complex64).conj()}), "arguments"
    yield "legacy", saved({"a": torch.ones(2)}, _use_new_zipfile_serialization=False), "before torch 1.6"
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), scripted)
    yield "torchscript", scripted.getvalue(), "stored uncompressed"
    yield "empty file", b"", "another kind of file"
    yield "safetensors", struct.pack("<Q", 2) + b"{}", "another kind of file"
    yield "other zip", archive({"a.txt": "x"}), "expected NAME/data.pkl"
    yield "pickle at the root", archive({"data.pkl": b"}.", "version": "3\n"}), "expected NAME/data.pkl"
    yield "two pickles", archive({"a/data.pkl": b"}.", "b/data.pkl": b"}."}), "one data.pkl, got two"
    yield "compressed", edited_compressed(), "stored uncompressed"
    yield ("stored torchscript", archive({f"m/{name}": b"}." for name in ("data.pkl", "constants.pkl")}),
           "got a TorchScript archive")
    yield "no version", archive({"m/data.pkl": b"}."}), "version: expected 1 to 10, got nothing"
    yield "version 11", archive({"m/data.pkl": b"}.", "m/version": "11\n"}), "got 11"
    yield "big-endian", archive({"m/data.pkl": b"}.", "m/version": "3\n", "m/byteorder": "big"}), "expected little"

    plain = saved({"a": torch.ones(2, 3)})

    def without_storage(entries):
        del entries["archive/data/0"]

    def short_storage(entries):
        entries["archive/data/0"] = entries["archive/data/0"][:-1]

    yield "no storage", edited(plain, without_storage), "a: expected the storage data/0"
    yield "short storage", edited(plain, short_storage), "a: expected a storage of 24 bytes, got 23"
    size, stride = b"K\x02K\x03\x86", b"K\x03K\x01\x86"
    yield "larger size", in_pickle(plain, size, b"K\x03K\x03\x86"), "a: expected it inside its storage"
    yield "huge size", in_pickle(plain, size, b"\x8a\x08" + b"\xff" * 7 + b"\x7fK\x03\x86"), "2^60"
    yield "negative size", in_pickle(plain, size, b"J\xff\xff\xff\xffK\x03\x86"), "at least 0, got -1"
    yield "long size", in_pickle(plain, size, b"\x8a\x09" + b"\1" * 9 + b"K\x03\x86"), "1 to 8 bytes"
    yield "other stride", in_pickle(plain, stride, b"K\x02K\x01\x86"), "contiguous"
    yield "short stride", in_pickle(plain, stride, b"K\x03\x85"), "as many strides as sizes"
    yield "offset", in_pickle(plain, b"QK\x00", b"QK\x01"), "a: expected it inside its storage"
    yield "negative offset", in_pickle(plain, b"QK\x00", b"QJ\xff\xff\xff\xff"), "at least 0, got -1"
    yield "huge offset", in_pickle(plain, b"QK\x00", b"Q\x8a\x08" + b"\xff" * 7 + b"\x7f"), "2^60"
    yield "other storage size", in_pickle(plain, b"K\x06tq", b"K\x07tq"), "expected a storage of 28 bytes, got 24"
    yield "huge storage", in_pickle(plain, b"K\x06tq", b"\x8a\x08" + b"\xff" * 7 + b"\x7ftq"), "2^60"
    yield "other storage type", in_pickle(plain, b"FloatStorage", b"HalfStorage"), "expected a storage of 12"
    yield "key out of the archive", in_pickle(plain, b"X\x01\0\0\x000q", b"X\x04\0\0\0../0q"), "data/../0"
    yield "location that is none", in_pickle(plain, b"X\x03\0\0\0cpu", b"K\1"), "storage location"

    def add_after(entries):
        entries["archive/data.pkl"] += b"N."

    yield "more after stop", edited(plain, add_after), "expected the end of the pickle"
    flipped = bytearray(plain)
    flipped[plain.index(b"cpu")] ^= 1
    yield "checksum", bytes(flipped), "data.pkl: checksum does not match"
    two = saved({"a": torch.ones(2), "b": torch.ones(2)})
    yield "name twice", in_pickle(two, b"X\x01\0\0\0b", b"X\x01\0\0\0a"), "a: expected each tensor once"
    yield "name that is not UTF-8", in_pickle(two, b"X\x01\0\0\0b", b"X\x01\0\0\0\xff"), "UTF-8"
    yield "NUL in a name", in_pickle(two, b"X\x01\0\0\0b", b"X\x01\0\0\0\0"), "UTF-8"


def edited_compressed():
    return archive({"m/data.pkl": b"}." , "m/version": "3\n" * 100}, zipfile.ZIP_DEFLATED)


def write_refused(output, wanted):
    for name, raw, needle in refused_cases():
        if wanted and name not in wanted:
            continue
        (output / f"{name}.bin").write_bytes(raw)
        (output / f"{name}.txt").write_text(needle)


if __name__ == "__main__":
    directory = Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    {"good": write_good, "refused": write_refused}[sys.argv[1]](directory, sys.argv[3:])
