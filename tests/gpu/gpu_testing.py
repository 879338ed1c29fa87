"""What the scripts of tests/gpu share: how to skip, where CUDA's tools are."""

import importlib.util
import pathlib
import shutil
import sys

SKIPPED = 77  # SKIP_RETURN_CODE of the ctest entries


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(SKIPPED)


def find_tool(name):
    """Path of a tool of the CUDA toolkit, or None. Triton, which comes with torch, carries some."""
    found = shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")
    triton = importlib.util.find_spec("triton")
    if found is None and triton is not None:
        path = pathlib.Path(triton.submodule_search_locations[0], "backends/nvidia/bin", name)
        found = str(path) if path.exists() else None
    return found
