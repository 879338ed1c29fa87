"""The layout `planes`: weights as bits, with levels by row, group of columns and region."""

import functools
import itertools
from math import comb

import numpy as np

from .checks import require, require_keys

DTYPES = {name: np.dtype(code) for name, code in
          [("U8", "u1"), ("I8", "i1"), ("U16", "<u2"), ("F16", "<f2"), ("U32", "<u4"),
           ("F32", "<f4")]}
SCALE_DTYPES = {"log8": "U8", "f16": "F16", "f32": "F32"}
# 2^(i/16) rounded to fp32.
LOG8_STEPS = np.array([2.0 ** (i / 16) for i in range(16)], dtype=np.float32)


@functools.lru_cache(maxsize=None)
def mask_words(n, m):
    """(C, G, w): combinations, ranks per word, bits per word."""
    combinations = comb(m, n)
    best = None
    for ranks in range(1, 17):
        bits = (combinations**ranks - 1).bit_length()
        if bits <= 64 and (best is None or bits * best[0] < best[1] * ranks):
            best = ranks, bits
    return (combinations, *best)


@functools.lru_cache(maxsize=None)
def rank_table(columns, kept):
    """bool [C(columns, kept), columns]: the kept columns of each colexicographic rank."""
    table = np.zeros((comb(columns, kept), columns), dtype=bool)
    for positions in itertools.combinations(range(columns), kept):
        rank = sum(comb(p, i + 1) for i, p in enumerate(positions))
        table[rank, list(positions)] = True
    return table


def numbers(bits, width):
    """uint64 [count] of `width` bits each, least significant first, from bits [count * width]."""
    if width == 0:
        return np.zeros(0, dtype=np.uint64)
    shifts = np.arange(width, dtype=np.uint64)
    return (bits.reshape(-1, width).astype(np.uint64) << shifts).sum(axis=1, dtype=np.uint64)


class Planes:
    """docs/format.md, "Layout planes": the planes of one module or factor, taken apart."""

    KEYS = ("layout", "rows", "cols", "block_size", "n", "m", "classes", "salient_classes",
            "scale_format", "offsets", "column_scales", "integer_bits", "index", "index_bits")

    @staticmethod
    def check(description, where):
        require_keys(description, Planes.KEYS, where)
        for key in ("rows", "cols", "block_size", "n", "m", "classes", "salient_classes"):
            require(type(description.get(key)) is int, f"{where}: {key}: expected an integer")
        d = description
        require(d.get("scale_format") in SCALE_DTYPES, f"{where}: unknown scale_format")
        require(d.get("offsets") in ("none", "block", "region"), f"{where}: unknown offsets")
        require(d["rows"] >= 1 and d["cols"] >= 1 and d["block_size"] >= 1, f"{where}: empty shape")
        n, m = d["n"], d["m"]
        require((n, m) == (0, 0) or (2 <= m <= 16 and 1 <= n <= m), f"{where}: bad N:M {n}:{m}")
        require(m == 0 or d["block_size"] % m == 0, f"{where}: block_size is no multiple of M")
        # Keys that older files do not have.
        d.setdefault("column_scales", False)
        d.setdefault("integer_bits", 0)
        index = d.setdefault("index", "none")
        require(type(d["column_scales"]) is bool, f"{where}: column_scales: expected true or false")
        bits = d["integer_bits"]
        require(type(bits) is int and bits in (0, *range(2, 9)), f"{where}: bad integer_bits")
        require(index in ("none", "bitmap", "deltas"), f"{where}: unknown index")
        width = d.get("index_bits")
        require(("index_bits" in d) == (index == "deltas"), f"{where}: index_bits belong to deltas")
        require(width is None or (type(width) is int and 2 <= width <= 8), f"{where}: bad index_bits")
        if bits and index == "none":
            plain = d["classes"] == d["salient_classes"] == m == 0 and not d["column_scales"]
            plain = plain and d["offsets"] == "none" and d["scale_format"] == "f16"
            require(plain, f"{where}: every weight is an integer, so there is nothing else")
            return
        require(index == "none" or (bits and m == 0), f"{where}: index without integers or with N:M")
        require(1 <= d["classes"] <= 3, f"{where}: classes outside of 1..3")
        most = 3 if d["classes"] == 1 and m == 0 and index == "none" else d["classes"]
        require(0 <= d["salient_classes"] <= most, f"{where}: bad salient_classes")

    def __init__(self, description, tensors, where):
        d = description
        self.where = where
        self.rows, self.cols, self.width = d["rows"], d["cols"], d["block_size"]
        self.n, self.m = d["n"], d["m"]
        self.classes, self.salient_classes = d["classes"], d["salient_classes"]
        self.scale_format, self.offset_kind = d["scale_format"], d["offsets"]
        self.column_scales = d.get("column_scales", False)
        self.integer_bits = d.get("integer_bits", 0)
        self.index, self.index_bits = d.get("index", "none"), d.get("index_bits")
        self.groups = -(-self.cols // self.width)
        self.regions = self.classes + self.salient_classes
        self.planes = tensors
        self.used = set()

    def bytes(self):
        return sum(data.size for _, _, data in self.planes.values())

    def plane(self, name, dtype, shape):
        require(name in self.planes, f"{self.where}.{name}: missing")
        got_dtype, got_shape, data = self.planes[name]
        require(
            got_dtype == dtype and got_shape == list(shape),
            f"{self.where}.{name}: expected {dtype} {list(shape)}, got {got_dtype} {got_shape}",
        )
        expected = int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype].itemsize
        require(data.size == expected, f"{self.where}.{name}: expected {expected} bytes")
        self.used.add(name)
        return np.frombuffer(data.tobytes(), DTYPES[dtype]).reshape(shape)

    def bits(self, name, count):
        """uint8 [count] of 0 and 1; the bits after them must be 0."""
        data = self.plane(name, "U8", [-(-count // 8)])
        bits = np.unpackbits(data, bitorder="little")
        require(not bits[count:].any(), f"{self.where}.{name}: padding is not zero")
        return bits[:count]

    def keep(self):
        """bool [rows, cols]: False where pruned."""
        keep = np.ones((self.rows, self.cols), dtype=bool)
        if self.m == 0 or self.n == self.m:
            return keep
        combinations, per_word, word_bits = mask_words(self.n, self.m)
        groups, tail = divmod(self.cols, self.m)
        words = -(-self.rows * groups // per_word)
        tail_kept = -(-tail * self.n // self.m)
        tail_bits = (comb(tail, tail_kept) - 1).bit_length()
        count = words * word_bits + self.rows * tail_bits
        bits = self.bits("mask", count) if count else np.zeros(0, dtype=np.uint8)
        if groups:
            word = numbers(bits[: words * word_bits], word_bits)
            ranks = np.empty((words, per_word), dtype=np.int64)
            for i in range(per_word):
                word, ranks[:, i] = np.divmod(word, np.uint64(combinations))
            require(not word.any(), f"{self.where}.mask: a word is no valid set of ranks")
            ranks = ranks.ravel()
            require(
                not ranks[self.rows * groups :].any(), f"{self.where}.mask: missing ranks are not 0"
            )
            pattern = rank_table(self.m, self.n)[ranks[: self.rows * groups]]
            keep[:, : groups * self.m] = pattern.reshape(self.rows, groups * self.m)
        if tail:
            ranks = np.zeros(self.rows, dtype=np.int64)
            if tail_bits:
                ranks = numbers(bits[words * word_bits :], tail_bits).astype(np.int64)
            table = rank_table(tail, tail_kept)
            require(ranks.max() < len(table), f"{self.where}.mask: a tail is no valid rank")
            keep[:, groups * self.m :] = table[ranks]
        return keep

    def class_codes(self, salient):
        """uint8: the class of each binary weight; salient: whether its column is, bool."""
        if self.salient_classes > self.classes:  # only salient columns have class digits
            codes = np.zeros(salient.size, dtype=np.uint8)
            codes[salient] = self.digits(self.salient_classes, int(salient.sum()))
            return codes
        codes = self.digits(self.classes, salient.size)
        require(
            not (codes[salient] >= self.salient_classes).any(),
            f"{self.where}.classes: invalid class in a salient column",
        )
        return codes

    def digits(self, radix, kept):
        """uint8 [kept]: the digits of the plane `classes`."""
        if radix == 1:
            return np.zeros(kept, dtype=np.uint8)
        if radix == 2:
            return self.bits("classes", kept)
        data = self.plane("classes", "U8", [-(-kept // 5)])
        require(data.size == 0 or data.max() <= 242, f"{self.where}.classes: byte above 242")
        digits = (data[:, None] // np.array([1, 3, 9, 27, 81], dtype=np.uint8) % 3).ravel()
        require(not digits[kept:].any(), f"{self.where}.classes: padding is not zero")
        return digits[:kept]

    def scales(self):
        """float32 [groups, regions, rows]"""
        shape = [self.groups, self.regions, self.rows]
        stored = self.plane("scales", SCALE_DTYPES[self.scale_format], shape)
        if self.scale_format != "log8":
            scales = stored.astype(np.float32)
            require(np.isfinite(scales).all(), f"{self.where}.scales: a scale is not finite")
            return scales
        base = self.plane("base", "F32", [1])[0]
        require(np.isfinite(base) and base >= 0, f"{self.where}.base: not finite and >= 0")
        step = np.arange(256) - 255
        factor = np.ldexp(LOG8_STEPS[step % 16], step // 16)
        factor[0] = 0
        return (base * factor.astype(np.float32))[stored]

    def offsets(self, scales):
        """float32 [groups, regions, rows], or None if there are none."""
        if self.offset_kind == "none":
            return None
        regions = [self.regions] if self.offset_kind == "region" else []
        shape = [self.groups, *regions, self.rows]
        log8 = self.scale_format == "log8"
        stored = self.plane("offsets", "I8" if log8 else SCALE_DTYPES[self.scale_format], shape)
        if self.offset_kind == "block":
            stored = stored[:, None, :]
        offsets = stored.astype(np.float32)
        if log8:
            require(stored.min() >= -127, f"{self.where}.offsets: code -128")
            offsets = offsets * (scales.max(axis=1, keepdims=True) * np.float32(1 / 128))
        require(np.isfinite(offsets).all(), f"{self.where}.offsets: an offset is not finite")
        return np.broadcast_to(offsets, scales.shape)

    def counts(self, name):
        """int64 [rows]: counts per row, none above the number of columns."""
        dtype = "U16" if self.cols <= 65535 else "U32"
        counts = self.plane(name, dtype, [self.rows]).astype(np.int64)
        require(counts.max() <= self.cols, f"{self.where}.{name}: more than there are columns")
        return counts

    def scattered(self):
        """bool [rows, cols]: the scattered integers."""
        mine = np.zeros((self.rows, self.cols), dtype=bool)
        if self.index == "none":
            return mine
        counts = self.counts("integer_counts")
        if self.index == "bitmap":
            mine = self.bits("index", mine.size).astype(bool).reshape(mine.shape)
        else:
            entries = self.counts("index_counts")
            bits = self.bits("index", int(entries.sum()) * self.index_bits)
            deltas = numbers(bits, self.index_bits).astype(np.int64)
            starts = np.concatenate([[0], np.cumsum(entries)])
            skip = (1 << self.index_bits) - 1
            for row in range(self.rows):
                delta = deltas[starts[row] : starts[row + 1]]
                real = delta != skip
                require(real[-1:].all(), f"{self.where}.index: row {row} ends with a skip")
                ends = np.cumsum(delta + real)  # the column after each entry
                require((ends <= self.cols).all(), f"{self.where}.index: leaves row {row}")
                mine[row, ends[real] - 1] = True
        require((mine.sum(axis=1) == counts).all(), f"{self.where}.index: not as many as counted")
        return mine

    def integers(self, row, col):
        """float32: the values of the integer weights at (row, col), in the order of the stream."""
        bits = self.integer_bits
        code = numbers(self.bits("integers", row.size * bits), bits).astype(np.int64)
        shape = [self.rows] if self.index != "none" else [self.groups, self.rows]
        step = self.plane("steps", "F16", shape)
        require(
            np.isfinite(step).all() and not np.signbit(step).any(),
            f"{self.where}.steps: not finite and >= 0",
        )
        zero = numbers(self.bits("zeros", step.size * bits), bits).astype(np.int64).reshape(shape)
        at = (row,) if self.index != "none" else (col // self.width, row)
        return (code - zero[at]).astype(np.float32) * step[at].astype(np.float32)

    def decode(self):
        """(float32 weight, bool keep), both [rows, cols]."""
        weight = np.zeros((self.rows, self.cols), dtype=np.float32)
        keep = np.ones(weight.shape, dtype=bool)
        if self.integer_bits and self.index == "none":
            row, col = np.nonzero(keep)
            weight[keep] = self.integers(row, col)
            self.expect_no_more_planes()
            return weight, keep
        keep = self.keep()
        scattered = self.scattered()
        binary = keep & ~scattered
        # Arrays over the binary weights only, in the order of the bit streams.
        row, col = np.nonzero(binary)
        sign = self.bits("signs", row.size).astype(bool)
        salient = np.zeros(self.cols, dtype=bool)
        if self.salient_classes:
            salient = self.bits("salient", self.cols).astype(bool)
        region = self.class_codes(salient[col]).astype(np.intp)
        region[salient[col]] += self.classes
        scales = self.scales()
        offsets = self.offsets(scales)
        at = col // self.width, region, row
        scale = scales[at]
        value = np.where(sign, scale, -scale)
        if offsets is not None:
            value = offsets[at] + value
        weight[binary] = value
        if self.index != "none":
            weight[scattered] = self.integers(*np.nonzero(scattered))
        if self.column_scales:
            factor = self.plane("column_scales", "F16", [self.cols]).astype(np.float32)
            good = np.isfinite(factor).all() and (factor > 0).all()
            require(good, f"{self.where}.column_scales: not finite and > 0")
            weight[keep] *= np.broadcast_to(factor, weight.shape)[keep]
        self.expect_no_more_planes()
        return weight, keep

    def expect_no_more_planes(self):
        unexpected = set(self.planes) - self.used
        require(not unexpected, f"{self.where}: unexpected planes {sorted(unexpected)}")
