"""The layout `trellis`: groups of four columns whose codes share bits from row to row."""

import numpy as np

from .checks import require, require_keys
from .trellis_table import ROOTS, TABLE, UNITS


class Trellis:
    """docs/format.md, "Layout trellis": the planes of one module or factor."""

    MOST = 1 << 30
    n = m = 0  # nothing is pruned

    @staticmethod
    def check(description, where):
        require_keys(description, ("layout", "rows", "cols", "rates"), where)
        sizes = [description.get("rows"), description.get("cols")]
        right = all(type(size) is int and 1 <= size <= Trellis.MOST for size in sizes)
        require(right and sizes[0] <= (1 << 40) // sizes[1], f"{where}: bad rows and cols")
        rates = description.get("rates")
        right = isinstance(rates, list) and 1 <= len(rates) <= 4
        right = right and all(type(rate) is int and 1 <= rate <= 4 for rate in rates)
        require(right, f"{where}: rates: expected 1..4 of 1..4")

    def __init__(self, description, tensors, where):
        self.where = where
        self.rows, self.cols = description["rows"], description["cols"]
        self.rates = description["rates"]
        self.planes = tensors
        self.groups = -(-self.cols // 4)
        self.segments = -(-self.rows // 512)
        self.segment_rows = 64 * -(-self.rows // (64 * self.segments))

    def bytes(self):
        return sum(data.size for _, _, data in self.planes.values())

    def plane(self, name, dtype, shape, width):
        require(name in self.planes, f"{self.where}.{name}: missing")
        got_dtype, got_shape, data = self.planes[name]
        right = got_dtype == dtype and got_shape == shape
        right = right and data.size == width * int(np.prod(shape, dtype=np.int64))
        require(right, f"{self.where}.{name}: expected {dtype} {shape}")
        return np.array(data).reshape(*shape[:-1], -1)

    def states(self, number):
        """uint8 [groups, rows] of a plane."""
        rate = self.rates[number]
        bits = self.segments * (8 - rate) + rate * self.rows
        data = self.plane(f"codes{number}", "U8", [self.groups, -(-bits // 8)], 1)
        stream = np.unpackbits(data, axis=1, bitorder="big")
        padding = stream[:, bits:]
        require(not padding.any(), f"{self.where}.codes{number}: padding is not zero")
        row = np.arange(self.rows)
        # A segment has 8 - rate bits more than its rows.
        first = rate * row + (8 - rate) * (row // self.segment_rows)
        windows = stream[:, first[:, None] + np.arange(8)]
        return np.packbits(windows, axis=2, bitorder="big")[:, :, 0]

    def decode(self):
        """(float32 weight, bool: all are kept)"""
        names = {"scales", *(f"codes{p}" for p in range(len(self.rates)))}
        require(set(self.planes) == names, f"{self.where}: other planes than {sorted(names)}")
        scales = self.plane("scales", "F16", [self.rows], 2).view("<f2").ravel()
        right = np.isfinite(scales).all() and not np.signbit(scales).any()
        require(right, f"{self.where}.scales: not finite and >= 0")
        total = np.zeros((self.groups, self.rows, 4), dtype=np.int64)
        root = 1 << 16
        for number, rate in enumerate(self.rates):
            gain = (root * UNITS[rate - 1] + (1 << 15)) >> 16
            root = (root * ROOTS[rate - 1] + (1 << 15)) >> 16
            total += gain * TABLE[self.states(number)].astype(np.int64)
        values = total.transpose(1, 0, 2).reshape(self.rows, -1)[:, : self.cols]
        values = values.astype(np.float32) * np.float32(2.0**-19)
        weight = np.ascontiguousarray(scales.astype(np.float32)[:, None] * values)
        return weight, np.ones(weight.shape, dtype=bool)
