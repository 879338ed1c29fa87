"""The small cases of cuda_test under compute-sanitizer. Usage: sanitizer_test.py TOOL PROGRAM, TOOL
memcheck or racecheck."""

import shutil
import subprocess
import sys

import gpu_testing


def main():
    tool, program = sys.argv[1], sys.argv[2]
    if shutil.which("nvidia-smi") is None or "GPU 0" not in subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True).stdout:
        gpu_testing.skip("no NVIDIA GPU (nvidia-smi lists none)")
    sanitizer = gpu_testing.find_tool("compute-sanitizer")
    if sanitizer is None:
        gpu_testing.skip("no compute-sanitizer")
    result = subprocess.run([sanitizer, "--tool", tool, "--error-exitcode", "9", program,
                             "--gtest_filter=Gpu.Small*"], capture_output=True, text=True)
    print(result.stdout[-6000:] + result.stderr[-2000:])
    if "ERROR SUMMARY: 0 errors" not in result.stdout and tool == "memcheck":
        sys.exit("memcheck did not say that there are no errors")
    if "SKIPPED" in result.stdout:
        sys.exit("the cases did not run")
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
