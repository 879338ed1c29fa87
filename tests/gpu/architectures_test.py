"""libbillm_cuda.so holds machine code for every architecture of BILLM_CUDA_ARCHITECTURES, and PTX of
the oldest. Usage: architectures_test.py LIBRARY ARCHITECTURE..."""

import re
import subprocess
import sys

import gpu_testing


def listed(tool, what, library):
    result = subprocess.run([tool, what, library], capture_output=True, text=True, check=True)
    return set(re.findall(r"\.sm_(\d+[a-z]?)\.", result.stdout))


def main():
    library, wanted = sys.argv[1], sys.argv[2:]
    tool = gpu_testing.find_tool("cuobjdump")
    if tool is None:
        gpu_testing.skip("no cuobjdump")
    code, ptx = listed(tool, "--list-elf", library), listed(tool, "--list-ptx", library)
    if code != set(wanted) or ptx != {wanted[0]}:
        sys.exit(f"expected code for {wanted} and PTX for {wanted[0]}, got {sorted(code)} and {sorted(ptx)}")
    print(f"code for {sorted(code, key=int)}, PTX for {sorted(ptx)}")


if __name__ == "__main__":
    main()
