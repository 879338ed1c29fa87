"""The layout `integer_rows`: an embedding or an output head as integers with a scale per group."""

import numpy as np

from .checks import require, require_keys


class IntegerRows:
    """docs/format.md, "Integer rows"."""

    MOST = 1 << 30

    @staticmethod
    def check(description, where):
        require_keys(description, ("layout", "rows", "cols", "bits", "block_size"), where)
        for key in ("rows", "cols", "bits", "block_size"):
            value = description.get(key)
            right = type(value) is int and 1 <= value <= IntegerRows.MOST
            require(right, f"{where}: {key}: expected 1..2^30")
        require(description["bits"] in (4, 8), f"{where}: bits: expected 4 or 8")
        fits = description["block_size"] <= description["cols"]
        require(fits, f"{where}: block_size: expected at most cols")

    def __init__(self, description, tensors, where):
        self.where = where
        self.rows, self.cols, self.bits, self.block_size = (
            description[key] for key in ("rows", "cols", "bits", "block_size"))
        self.n = self.m = 0
        self.groups = -(-self.cols // self.block_size)
        require(set(tensors) == {"codes", "scales"}, f"{where}: expected codes and scales")
        codes = self.plane(tensors, "codes", "U8", [self.rows, -(-self.cols * self.bits // 8)])
        scales = self.plane(tensors, "scales", "F16", [self.rows, self.groups])
        self.codes = np.frombuffer(codes, np.uint8).reshape(self.rows, -1)
        self.scales = np.frombuffer(scales, "<f2").reshape(self.rows, self.groups)
        right = np.isfinite(self.scales).all() and not np.signbit(self.scales).any()
        require(right, f"{where}.scales: expected finite numbers >= 0")
        if self.bits == 4 and self.cols % 2:
            padding = (self.codes[:, -1] >> 4).any()
            require(not padding, f"{where}.codes: expected zero padding bits")

    def plane(self, tensors, name, dtype, shape):
        got, sizes, data = tensors[name]
        size = int(np.prod(shape, dtype=object)) * (2 if dtype == "F16" else 1)
        right = got == dtype and sizes == shape and data.size == size
        require(right, f"{self.where}.{name}: expected {dtype} {shape}, got {got} {sizes}")
        return data.tobytes()

    def bytes(self):
        return self.codes.nbytes + self.scales.nbytes

    def decode(self):
        """(float32 weight, bool keep), both [rows, cols]."""
        codes = self.codes
        if self.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=2).reshape(self.rows, -1)
        integers = codes[:, : self.cols].astype(np.float32) - np.float32(1 << (self.bits - 1))
        scales = self.scales.astype(np.float32).repeat(self.block_size, axis=1)[:, : self.cols]
        weight = integers * scales
        return weight, np.ones(weight.shape, bool)
