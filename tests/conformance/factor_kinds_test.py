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
        running = text_of("src/model/linear_operator.cpp")
        packed = re.search(r"using PackedFactor = std::variant<([^>]*)>",
                           text_of("include/billm/pack/packed_layer.h")).group(1).split(", ")
        self.assertEqual(len(packed), len(kinds()))
        for kind, name in zip(kinds(), packed):
            with self.subTest(kind=kind):
                self.assertRegex(running, rf"std::get(_if)?<{name}>\(")

    def test_learning(self):
        learning = text_of("src/learn/factor_kinds.cpp")
        for kind in kinds():
            with self.subTest(kind=kind):
                self.assertIn(f'"{kind}"', learning)

    def test_numpy_decoder(self):
        self.assertEqual(sorted(packed_layouts.FACTORS), sorted(kinds()))
        self.assertEqual(sorted(packed_layouts.LAYOUTS), ["planes", "product"])

    def test_format(self):
        document = text_of("docs/format.md")
        for kind in kinds():
            with self.subTest(kind=kind):
                self.assertRegex(document, rf"(?im)^## (Layout `)?{kind}`?$")
                self.assertIn(f"| `{kind}` |", document)


if __name__ == "__main__":
    unittest.main()
