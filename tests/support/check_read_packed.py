"""Compares tools/read_packed.py with billm's own decoder, bit by bit.

check_read_packed.py SHARD.safetensors EXPECTED
    EXPECTED: for each module, in the order of their names, a byte 0 (must be refused) or 1 (must be
    accepted), and in the second case the weight [rows, cols] as little-endian fp32.
"""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import read_packed  # noqa: E402


def main():
    shard, expected_path = sys.argv[1:]
    packed = read_packed.Packed([shard])
    expected = pathlib.Path(expected_path).read_bytes()
    position = equal = refused = 0
    np.seterr(over="ignore")  # a damaged F32 scale may be large
    for name in sorted(read_packed.modules(packed)):
        accept = expected[position] == 1
        position += 1
        try:
            module = read_packed.Module(packed, name)
            weight, _ = module.decode()
        except read_packed.FormatError as error:
            if accept:
                sys.exit(f"{name}: billm decodes it, read_packed.py refuses it: {error}")
            refused += 1
            continue
        if not accept:
            sys.exit(f"{name}: billm refuses it, read_packed.py does not")
        data = weight.astype("<f4").tobytes()
        if data != expected[position : position + len(data)]:
            other = np.frombuffer(expected, "<f4", weight.size, position).reshape(weight.shape)
            at = np.argwhere(weight.view("<u4") != other.view("<u4"))[0]
            sys.exit(
                f"{name}: {module.shard.metadata[name]}: at {at.tolist()} read_packed.py has "
                f"{weight[tuple(at)]!r}, billm {other[tuple(at)]!r}"
            )
        position += len(data)
        equal += 1
    if position != len(expected):
        sys.exit("there are more expected weights than modules")
    print(f"{equal + refused} modules: {equal} equal, {refused} refused")


if __name__ == "__main__":
    main()
