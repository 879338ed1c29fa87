"""The layouts of packed modules (docs/format.md), one class each, with numpy alone.

Each class has: check(description, where), which refuses what the format does not allow;
Class(description, tensors, where), where `tensors` maps the names of its planes to (dtype, shape,
bytes); bytes(), of its planes. Planes, Trellis, Product and IntegerRows have decode(): the weight and
which weights are kept;
a Rotation is applied to the rows of a matrix.
"""

from . import checks
from .checks import FormatError, require
from .integer_rows import IntegerRows
from .planes import Planes
from .product import FACTORS, Product
from .rotation import Rotation
from .trellis import Trellis

LAYOUTS = {"planes": Planes, "product": Product, "trellis": Trellis, "integer_rows": IntegerRows}
# Of the format that has them.
VERSIONS = {"planes": 1, "product": 2, "trellis": 2, "integer_rows": 3}

__all__ = ["FACTORS", "FormatError", "IntegerRows", "LAYOUTS", "Planes", "Product", "Rotation",
           "Trellis", "VERSIONS", "layout_of", "require"]


def layout_of(description, where):
    """The class of a module's description, which is checked."""
    return checks.layout_of(description, where, LAYOUTS)
