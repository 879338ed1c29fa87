"""Writes the arrays of a .npz file as raw little-endian files, for tests in C++.

dump_npz.py FILE.npz DIRECTORY
    <name>.f32 for float arrays, <name>.u8 for byte arrays. Prints name, dtype and shape of each.
"""

import pathlib
import sys

import numpy as np


def main():
    path, directory = sys.argv[1:]
    for name, array in np.load(path).items():
        kind = "u8" if array.dtype == np.uint8 else "f32"
        data = np.ascontiguousarray(array, dtype="u1" if kind == "u8" else "<f4")
        (pathlib.Path(directory) / f"{name}.{kind}").write_bytes(data.tobytes())
        print(name, kind, *array.shape)


if __name__ == "__main__":
    main()
