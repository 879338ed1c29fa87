"""Every kind of factor has its row in every table: packing, running, learning, the numpy decoder and
the format's document. A kind that is missing from one of them is named here, before a user finds it."""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

try:
    import packed_layouts
except ImportError as error:  # numpy
    print(f"SKIP: {error}")
    sys.exit(77)


def text_of(path):
    return (ROOT / path).read_text()


def kinds():
    names = re.search(r"kNames\[\] = \{([^}]*)\}", text_of("src/codes/layer_codes.cpp")).group(1)
    return re.findall(r'"(\w+)"', names)


def alternatives():
    """The C++ types in the order of the names."""
    header = text_of("include/billm/codes/layer_codes.h")
    return re.search(r"using Factor = std::variant<([^>]*)>", header).group(1).split(", ")


def rows_of(path):
    """The cells of a C++ table `kRows[] = {{cell, cell}, ...}`."""
    table = re.search(r"kRows\[\] = \{\n(.*?)\n\};", text_of(path), re.DOTALL).group(1)
    return [re.findall(r'"[^"]*"|\w+', row) for row in re.findall(r"\{([^{}]*)\}", table)]


class FactorKinds(unittest.TestCase):
    def test_one_name_for_each_alternative(self):
        self.assertGreaterEqual(len(kinds()), 2)
        self.assertEqual(len(kinds()), len(alternatives()))

    def test_packing(self):
        packing = "\n".join(path.read_text() for path in (ROOT / "src/pack").glob("*_layout.cpp"))
        for kind in kinds():
            with self.subTest(kind=kind):
                self.assertIn(f'.name = "{kind}"', packing)

    def test_running(self):
        packed = re.search(r"using PackedFactor = std::variant<([^>]*)>",
                           text_of("include/billm/pack/packed_layer.h")).group(1).split(", ")
        self.assertEqual(len(packed), len(kinds()))
        rows = rows_of("src/model/factor_operators.cpp")
        self.assertEqual([row[0] for row in rows], [f'"{kind}"' for kind in kinds()])
        for kind, (_, cpu, cuda) in zip(kinds(), rows):
            with self.subTest(kind=kind):
                self.assertNotEqual(cpu, "nullptr")
                self.assert_there_or_why_not(cuda)

    def assert_there_or_why_not(self, cell):
        """`nullptr` (nothing is missing) or a sentence for users."""
        if cell != "nullptr":
            self.assertGreater(len(cell.strip('"').split()), 4, cell)

    def test_learning(self):
        rows = rows_of("src/learn/factor_kinds.cpp")
        self.assertEqual([row[0] for row in rows], [f'"{kind}"' for kind in kinds()])
        for kind, (_, without) in zip(kinds(), rows):
            with self.subTest(kind=kind):
                self.assert_there_or_why_not(without)

    def test_numpy_decoder(self):
        self.assertEqual(sorted(packed_layouts.FACTORS), sorted(kinds()))
        # A rotation alone is no layer.
        alone = sorted(set(kinds()) - {"rotation"} | {"product", "integer_rows"})
        self.assertEqual(sorted(packed_layouts.LAYOUTS), alone)

    def test_format(self):
        document = text_of("docs/format.md")
        for kind in kinds():
            with self.subTest(kind=kind):
                self.assertRegex(document, rf"(?im)^## (Layout `)?{kind}`?$")
                self.assertIn(f"| `{kind}` |", document)


if __name__ == "__main__":
    unittest.main()
