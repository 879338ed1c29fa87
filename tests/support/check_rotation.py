"""Compares billm's rotations in double with those of tools/read_packed.py, bit by bit.

check_rotation.py FILE: records of int64 size, seed, transposed, count, then doubles [count, size]
of vectors and [count, size] of what billm made of them.
"""

import pathlib
import sys

import numpy as np

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
import read_packed  # noqa: E402

if not hasattr(read_packed, "Rotation"):  # until tools/read_packed_rotation.part.py is merged
    import decimal

    read_packed.decimal = decimal
    exec((TOOLS / "read_packed_rotation.part.py").read_text(), read_packed.__dict__)


def main():
    data = pathlib.Path(sys.argv[1]).read_bytes()
    at = records = 0
    while at < len(data):
        size, seed, transposed, count = np.frombuffer(data, "<i8", 4, at).tolist()
        at += 32
        before, after = np.frombuffer(data, "<f8", 2 * count * size, at).reshape(2, count, size)
        at += 16 * count * size
        rotated = read_packed.Rotation(size, seed, bool(transposed)).apply(before)
        if rotated.tobytes() != after.tobytes():
            i = np.argwhere(rotated != after)[0]
            sys.exit(f"size {size}, seed {seed}, transposed {transposed}: at {i.tolist()} "
                     f"read_packed.py has {rotated[tuple(i)]!r}, billm {after[tuple(i)]!r}")
        records += 1
    print(f"{records} rotations equal")


if __name__ == "__main__":
    main()
