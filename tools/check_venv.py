#!/usr/bin/env python3
"""Says which pinned packages of a requirements file are missing or broken in this environment.

Why: an interrupted pip leaves packages whose version looks right but whose files are incomplete.
Prints one requirement per line that has to be installed again (nothing when all is well) and exits
0; the caller decides. Every installed package is compared with its own file list, so that a broken
dependency is found, too. Only the standard library is used.
"""

import importlib.metadata
import sys


def is_complete(distribution):
    """True when every file the package's RECORD lists is there with the recorded size."""
    for file in distribution.files or []:
        if file.size is None or file.suffix == ".pyc":
            continue
        path = file.locate()
        try:
            if path.stat().st_size != file.size:
                return False
        except OSError:
            return False
    return bool(distribution.files)


def read_pins(path):
    with open(path, encoding="utf-8") as file:
        lines = [line.split("#")[0].strip() for line in file]
    return dict(line.split("==") for line in lines if line)


def main():
    pins = read_pins(sys.argv[1])
    versions = {}
    broken = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if not name or name in versions:
            continue
        versions[name] = distribution.version
        if name not in ("pip", "setuptools") and not is_complete(distribution):
            broken[name] = distribution.version
    for name, version in pins.items():
        if versions.get(name, "").split("+")[0] != version:
            broken[name] = version
    for name, version in sorted(broken.items()):
        print(f"{name}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
