#!/usr/bin/env python3
"""What the safetensors library says of files: for each path in a list file, in its order, a line
"1" (it opens and every tensor is read) or "0 reason".

Usage: safetensors_reference.py LIST
"""

import sys

from safetensors import SafetensorError, safe_open


def verdict(path):
    try:
        with safe_open(path, framework="numpy") as file:
            file.metadata()
            for name in file.keys():
                file.get_slice(name).get_shape()
        return "1"
    except SafetensorError as error:
        return f"0 {error}"
    except (OSError, ValueError) as error:  # shorter than a header; names that are no UTF-8
        return f"0 {type(error).__name__}: {error}"


if __name__ == "__main__":
    with open(sys.argv[1]) as paths:
        for line in paths:
            print(" ".join(verdict(line.rstrip("\n")).split()))
