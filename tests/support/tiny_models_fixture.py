#!/usr/bin/env python3
"""ctest's fixture `tiny_models`: every case of make_tiny_model.py in one directory, made by one process
for all tests that read them.

Usage: tiny_models_fixture.py DIRECTORY
DIRECTORY/names.txt, the names one a line, is written last. Without transformers nothing is made: the
tests that need the models say so themselves.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path


def main():
    directory, here = Path(sys.argv[1]), Path(__file__).parent
    shutil.rmtree(directory, ignore_errors=True)
    if importlib.util.find_spec("transformers") is None:
        print("no tiny models: BILLM_PYTHON has no transformers")
        return
    directory.mkdir(parents=True)
    names = subprocess.run([sys.executable, here / "cached_reference.py",
                            here / "make_tiny_model.py", directory], stdout=subprocess.PIPE,
                           text=True, check=True).stdout
    (directory / "names.txt").write_text(names)


if __name__ == "__main__":
    main()
