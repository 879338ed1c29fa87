"""Compares billm's rotations in double with those of tools/packed_layouts, bit by bit.

check_rotation.py FILE: records of int64 size, seed, transposed, count, then doubles [count, size]
of vectors and [count, size] of what billm made of them.
"""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import packed_layouts  # noqa: E402


def main():
    data = pathlib.Path(sys.argv[1]).read_bytes()
    at = records = 0
    while at < len(data):
        size, seed, transposed, count = np.frombuffer(data, "<i8", 4, at).tolist()
        at += 32
        before, after = np.frombuffer(data, "<f8", 2 * count * size, at).reshape(2, count, size)
        at += 16 * count * size
        rotated = packed_layouts.Rotation(
            {"size": size, "seed": seed, "transposed": bool(transposed)}, {}, "rotation"
        ).apply(before)
        if rotated.tobytes() != after.tobytes():
            i = np.argwhere(rotated != after)[0]
            sys.exit(f"size {size}, seed {seed}, transposed {transposed}: at {i.tolist()} "
                     f"packed_layouts has {rotated[tuple(i)]!r}, billm {after[tuple(i)]!r}")
        records += 1
    print(f"{records} rotations equal")


if __name__ == "__main__":
    main()
