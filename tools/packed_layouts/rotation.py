"""The layout `rotation`: an orthonormal matrix that its size and seed determine."""

import decimal

import numpy as np

from .checks import require, require_keys


class Rotation:
    """docs/format.md, "Rotation": R (or R') of a size and seed, applied to rows of a matrix."""

    MAX_SIZE, MAX_ODD = 1 << 24, 1023

    @staticmethod
    def check(description, where):
        require_keys(description, ("layout", "size", "seed", "transposed"), where)
        size, seed = description.get("size"), description.get("seed")
        right = type(size) is int and 1 <= size <= Rotation.MAX_SIZE
        require(right, f"{where}: size: expected 1..2^24")
        require(type(seed) is int and 0 <= seed < 1 << 32, f"{where}: seed: expected 0..2^32-1")
        require(type(description.get("transposed")) is bool, f"{where}: transposed: true or false")
        odd = size // (size & -size)
        require(odd <= Rotation.MAX_ODD, f"{where}: odd part {odd} of {size} is above 1023")

    def __init__(self, description, tensors, where):
        require(not tensors, f"{where}: a rotation has no planes")
        self.size, self.seed = description["size"], description["seed"]
        self.transposed = description["transposed"]
        self.rows = self.cols = self.size
        self.power = self.size & -self.size
        self.odd = self.size // self.power

    def bytes(self):
        return 0

    def inverse(self):
        return Rotation({"size": self.size, "seed": self.seed, "transposed": not self.transposed},
                        {}, "")

    def signs(self):
        """float64 [size] of +1 and -1."""
        j = np.arange((self.size + 63) // 64, dtype=np.uint64)
        z = np.uint64(self.seed) + (j + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        words = (z ^ z >> np.uint64(31)).astype("<u8")
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: self.size]
        return np.where(bits == 1, 1.0, -1.0)

    def dct(self):
        """float64 [odd, odd]: each the double nearest to the exact value (50 digits, rounded)."""
        with decimal.localcontext(decimal.Context(prec=50)):
            pi = decimal.Decimal("3.14159265358979323846264338327950288419716939937510582097494")
            other = (decimal.Decimal(2) / self.odd).sqrt()
            values = []  # by a: sqrt(2 / odd) cos(pi a / (2 odd))
            for a in range(self.odd + 1):
                square = (pi * a / (2 * self.odd)) ** 2
                term = total = decimal.Decimal(1)
                for i in range(1, 80, 2):
                    term = -term * square / (i * (i + 1))
                    total += term
                values.append(float(other * total))
            first = float((1 / decimal.Decimal(self.odd)).sqrt())
        values[self.odd] = 0.0
        u, v = np.ogrid[: self.odd, : self.odd]
        a = (2 * v + 1) * u % (4 * self.odd)
        a = np.where(a > 2 * self.odd, 4 * self.odd - a, a)
        sign = np.where(a > self.odd, -1.0, 1.0)
        matrix = sign * np.array(values)[np.where(a > self.odd, 2 * self.odd - a, a)]
        matrix[0] = first
        return matrix

    def apply(self, rows):
        """R (or R') times each row of float64 [count, size]."""
        x = np.array(rows, dtype=np.float64)
        if not self.transposed:
            x = x * self.signs()
        distance = 1
        while distance < self.power:
            pairs = x.reshape(len(x), -1, 2, distance)
            low, high = pairs[:, :, 0], pairs[:, :, 1]
            x = np.stack([low + high, low - high], axis=2).reshape(len(x), self.size)
            distance *= 2
        if self.odd > 1:
            dct = self.dct().T if self.transposed else self.dct()
            inputs = x.reshape(len(x), self.odd, self.power)
            sums = dct[None, :, 0, None] * inputs[:, None, 0]
            for v in range(1, self.odd):
                sums = sums + dct[None, :, v, None] * inputs[:, None, v]
            x = sums.reshape(len(x), self.size)
        k = self.power.bit_length() - 1
        x = x * (2.0 ** -(k // 2) * (np.sqrt(0.5) if k % 2 else 1.0))
        return x * self.signs() if self.transposed else x
