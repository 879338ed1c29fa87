#!/usr/bin/env python3
"""Reads a packed model without billm: the format of docs/format.md, decoded a second time.

Written from docs/format.md alone, with numpy and the standard library only, so that a mistake in
billm's own reader or in the document shows as a difference, and so that a packed model can be read
where billm cannot run.

    packed = open_packed(directory)            # verifies every checksum of manifest.json
    for name in modules(packed):
        weight = decode(packed, name)          # float32 [rows, cols]

From the command line, read_packed.py DIRECTORY prints one line per module: shape, N:M, stored bits
(from the bytes of its planes), smallest and largest weight. Exit codes: 0 ok, 2 usage, 3 the model
is missing, damaged or not of this format.
"""

import argparse
import hashlib
import json
import pathlib
import sys

import numpy as np

from packed_layouts import VERSIONS, FormatError, IntegerRows, Planes, layout_of, require

FORMAT_VERSIONS = (1, 2, 3)  # 2: with products and trellises; 3: with integer rows


# --- containers -----------------------------------------------------------------------------------


class Shard:
    """A safetensors file: its metadata and, by name, (dtype, shape, bytes) of its tensors."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        try:
            self.data = np.memmap(self.path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise FormatError(f"{self.path}: {error}") from None
        require(self.data.size >= 8, f"{self.path}: too short for a safetensors file")
        length = int.from_bytes(self.data[:8].tobytes(), "little")
        require(length <= self.data.size - 8, f"{self.path}: the header is longer than the file")
        header = parse_json(self.data[8 : 8 + length].tobytes(), self.path)
        self.metadata = header.pop("__metadata__", {})
        strings = isinstance(self.metadata, dict) and all(
            isinstance(text, str) for text in self.metadata.values()
        )
        require(strings, f"{self.path}: __metadata__: expected texts")
        self.entries = header
        self.start = 8 + length
        self.planes_of = {}  # module -> names of its planes
        for name in header:
            # A plane of a product is named after its factor, too.
            parts = name.split(".")
            for end in range(1, len(parts)):
                module, plane = ".".join(parts[:end]), ".".join(parts[end:])
                self.planes_of.setdefault(module, []).append(plane)

    def tensor(self, name):
        try:
            entry = self.entries[name]
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            inside = 0 <= begin <= end <= self.data.size - self.start
            data = self.data[self.start + begin : self.start + end]
        except (KeyError, TypeError, ValueError):
            raise FormatError(f"{self.path}: {name}: not a tensor") from None
        require(inside, f"{self.path}: {name}: data_offsets outside of the file")
        return dtype, shape, data


def parse_json(text, where):
    try:
        value = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{where}: not JSON: {error}") from None
    require(isinstance(value, dict), f"{where}: expected a JSON object")
    return value


def read_bytes(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from None


class Packed:
    """The packed modules of some shards: name -> (shard, description)."""

    def __init__(self, paths):
        self.modules = {}
        for path in paths:
            shard = Shard(path)
            version = shard.metadata.get("billm_format")
            if version is None:
                continue
            known = version in map(str, FORMAT_VERSIONS)
            require(known, f"{path}: billm_format: expected {FORMAT_VERSIONS}, got {version}")
            for name, text in shard.metadata.items():
                if name not in ("format", "billm_format"):
                    require(name not in self.modules, f"{path}: {name}: described twice")
                    description = parse_json(text, f"{path}: {name}")
                    layout = layout_of(description, f"{path}: {name}")
                    self.modules[name] = shard, layout, description


def open_packed(directory):
    """The packed model in `directory`, its version and all checksums verified."""
    directory = pathlib.Path(directory)
    path = directory / "manifest.json"
    text = read_bytes(path)
    expected = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n".encode()
    own = read_bytes(directory / "manifest.sha256")
    require(own == expected, f"{path}: does not match manifest.sha256")
    manifest = parse_json(text, path)
    config = parse_json(read_bytes(directory / "config.json"), directory / "config.json")
    config = config.get("quantization_config", {})
    ours = isinstance(config, dict) and config.get("quant_method") == "billm"
    require(ours, f"{directory}/config.json: not a billm model")
    for where, version in ((path, manifest), (directory / "config.json", config)):
        got = version.get("format_version")
        known = got in FORMAT_VERSIONS
        require(known, f"{where}: format_version: expected {FORMAT_VERSIONS}, got {got}")
    require(isinstance(manifest.get("files"), dict), f"{path}: files: expected an object")
    for name, entry in manifest["files"].items():
        known = isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() and "/" not in name
        require(known, f"{path}: files: {name!r}: expected bytes and sha256")
        data = read_bytes(directory / name)
        require(len(data) == entry["bytes"], f"{directory / name}: expected {entry['bytes']} bytes")
        digest = hashlib.sha256(data).hexdigest()
        same = digest == entry["sha256"]
        require(same, f"{directory / name}: checksum does not match manifest.json")
    shards = sorted(directory.glob("*.safetensors"))
    for shard in shards:
        require(shard.name in manifest["files"], f"{shard}: not listed in manifest.json")
    packed = Packed(shards)
    require(packed.modules, f"{directory}: no packed module in any shard")
    return packed


def modules(packed):
    """Names of the packed modules. `packed`: what open_packed returned, or a directory."""
    return list(_opened(packed).modules)


def _opened(packed):
    return packed if isinstance(packed, Packed) else open_packed(packed)


class Module:
    """One packed module: its layout's class over its planes."""

    def __init__(self, packed, name):
        require(name in packed.modules, f"{name}: not a packed module")
        self.shard, layout, description = packed.modules[name]
        self.name = name
        self.where = f"{self.shard.path}: {name}"
        version, needed = int(self.shard.metadata["billm_format"]), VERSIONS[description["layout"]]
        fits = version >= needed
        require(fits, f"{self.where}: a shard of billm_format {version}: expected {needed}")
        planes = {
            plane: self.shard.tensor(f"{name}.{plane}")
            for plane in self.shard.planes_of.get(name, [])
        }
        self.layer = layout(description, planes, self.where)
        self.rows, self.cols, self.n, self.m = (
            self.layer.rows, self.layer.cols, self.layer.n, self.layer.m)

    def bytes(self):
        return self.layer.bytes()

    def decode(self):
        """(float32 weight, bool keep), both [rows, cols]; of a product (weight, None)."""
        return self.layer.decode()


def decode(packed, module):
    """float32 [rows, cols]: the weight of `module`."""
    return Module(_opened(packed), module).decode()[0]


def check_strict(module, weight, keep):
    """Exactly N of every M columns in a row kept, ceil(t N / M) of a tail, the rest exactly 0."""
    require(np.isfinite(weight).all(), f"{module.where}: a weight is not finite")
    if keep is None:  # a product: its factors are strict
        for factor in module.layer.factors:
            if isinstance(factor, Planes):
                check_strict(factor, *factor.decode())
        return
    require(not weight[~keep].any(), f"{module.where}: a pruned weight is not 0")
    if module.m == 0:
        require(keep.all(), f"{module.where}: a weight is pruned without N:M")
        return
    full = module.cols // module.m * module.m
    counts = keep[:, :full].reshape(module.rows, -1, module.m).sum(axis=2)
    require((counts == module.n).all(), f"{module.where}: not {module.n} of {module.m} kept")
    tail = -(-(module.cols - full) * module.n // module.m)
    tails = keep[:, full:].sum(axis=1)
    require((tails == tail).all(), f"{module.where}: not {tail} kept in a tail")


# --- command line ---------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description="Prints the modules of a packed model.")
    parser.add_argument("directory", metavar="DIRECTORY")
    parser.add_argument("--module", metavar="NAME", help="only this one")
    parser.add_argument("--check", action="store_true", help="verify that N:M is strict")
    arguments = parser.parse_args()
    try:
        packed = open_packed(arguments.directory)
        total_bytes = total_weights = 0
        for name in [arguments.module] if arguments.module else modules(packed):
            module = Module(packed, name)
            weight, keep = module.decode()
            if arguments.check:
                check_strict(module, weight, keep)
            nm = f"{module.n}:{module.m}" if module.m else "-"
            bits = 8 * module.bytes() / weight.size
            print(
                f"{name} [{module.rows}, {module.cols}] N:M {nm} bits {bits:.4f} "
                f"min {weight.min():.6g} max {weight.max():.6g}"
            )
            if isinstance(module.layer, IntegerRows):
                continue  # stored bits are those of the blocks' linears
            total_bytes += module.bytes()
            total_weights += weight.size
        checked = ", strict N:M checked" if arguments.check else ""
        if total_weights:
            print(f"stored bits {8 * total_bytes / total_weights:.6f}{checked}")
    except FormatError as error:
        print(f"read_packed.py: error: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
