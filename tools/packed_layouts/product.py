"""The layout `product`: a weight that is the product of factors."""

import itertools

import numpy as np

from .checks import layout_of, require, require_keys
from .planes import Planes
from .rotation import Rotation
from .trellis import Trellis

FACTORS = {"planes": Planes, "rotation": Rotation, "trellis": Trellis}


class Product:
    """docs/format.md, "Products": F0 F1 ... Fk."""

    MOST = 8
    INNER = 64  # rows of an inner factor that are allowed in a layer of any size

    @staticmethod
    def check(description, where):
        require_keys(description, ("layout", "rows", "cols", "factors"), where)
        factors = description.get("factors")
        right = isinstance(factors, list) and 2 <= len(factors) <= Product.MOST
        require(right, f"{where}: factors: expected 2..{Product.MOST}")
        shapes = []
        for i, factor in enumerate(factors):
            kind = layout_of(factor, f"{where}: factor {i}", FACTORS)
            square = kind is Rotation
            shapes.append((factor["size"],) * 2 if square else (factor["rows"], factor["cols"]))
        for i, (before, after) in enumerate(itertools.pairwise(shapes)):
            require(before[1] == after[0], f"{where}: factor {i + 1}: expected {before[1]} rows")
        most = max(Product.INNER, 4 * max(shapes[0][0], shapes[-1][1]))
        for i, (rows, _) in enumerate(shapes[1:], 1):
            require(rows <= most, f"{where}: factor {i}: expected at most {most} rows")
        outer = description.get("rows"), description.get("cols")
        require(outer == (shapes[0][0], shapes[-1][1]), f"{where}: the factors have another shape")
        planes = any(factor["layout"] != "rotation" for factor in factors)
        require(planes, f"{where}: expected a factor with planes")

    def __init__(self, description, tensors, where):
        self.rows, self.cols = description["rows"], description["cols"]
        own = [{} for _ in description["factors"]]
        for name, tensor in tensors.items():
            number, _, plane = name.partition(".")
            known = number in map(str, range(len(own)))
            require(known, f"{where}.{name}: no plane of this module")
            own[int(number)][plane] = tensor
        self.factors = [
            FACTORS[factor["layout"]](factor, planes, f"{where}: factor {i}")
            for i, (factor, planes) in enumerate(zip(description["factors"], own))
        ]
        # The N:M of the only factor that has a mask, if any.
        masks = [f for f in self.factors if isinstance(f, Planes) and f.m]
        self.n, self.m = (masks[0].n, masks[0].m) if masks else (0, 0)

    def bytes(self):
        return sum(factor.bytes() for factor in self.factors)

    def decode(self):
        """(float32 weight, None): what is pruned in a factor is not 0 in the product."""
        matrices = [f if isinstance(f, Rotation) else f.decode()[0] for f in self.factors]
        start = next(i for i, m in enumerate(matrices) if not isinstance(m, Rotation))
        product = matrices[start].astype(np.float64)
        for factor in matrices[start + 1 :]:
            if isinstance(factor, Rotation):
                product = factor.inverse().apply(product)
            else:
                terms = factor.astype(np.float64)
                total = product[:, :1] * terms[:1]
                for i in range(1, len(terms)):
                    total = total + product[:, i : i + 1] * terms[i : i + 1]
                product = total
        for factor in reversed(matrices[:start]):
            product = factor.apply(product.T).T
        return np.ascontiguousarray(product.astype(np.float32)), None
