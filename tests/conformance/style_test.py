#!/usr/bin/env python3
"""The tree's style, of the files that git knows: `format` compares every C++ and CUDA file with what
clang-format makes of it, `shellcheck` checks every shell script.

Usage: style_test.py format | shellcheck
Skips (exit code 77) where the tool or git is missing, and on another version of clang-format than the
one that the tree is formatted by; with BILLM_REQUIRE_DATA=1 it fails instead."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLANG_FORMAT = 14  # Debian 12's
SOURCES = (".h", ".cpp", ".cu", ".cuh")
SHELL = re.compile(rb"^#!.*\b(?:ba|da)?sh\b")


def skip(reason):
    if os.environ.get("BILLM_REQUIRE_DATA") == "1":
        sys.exit(f"FAILED: {reason}, and BILLM_REQUIRE_DATA=1")
    print(f"SKIP: {reason}")
    sys.exit(77)


def tool(name):
    """The path of that program, in its Debian version where there are several."""
    path = shutil.which(f"{name}-{CLANG_FORMAT}") or shutil.which(name)
    return path or skip(f"{name} is missing (apt-get install {name})")


def tracked_files():
    git = shutil.which("git")
    if not git or not (ROOT / ".git").exists():
        skip("not a git checkout: nothing says which files belong to the tree")
    # Whoever owns the checkout: only names are read.
    listing = subprocess.run([git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT,
                             capture_output=True, check=True).stdout
    files = [ROOT / name for name in listing.decode().split("\0") if name]
    return [path for path in files if path.is_file() and not path.is_symlink()]


def is_shell_script(path):
    if path.suffix == ".sh":
        return True
    with open(path, "rb") as file:
        return SHELL.match(file.readline(80)) is not None


def format_command(files):
    program = tool("clang-format")
    version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)", version)
    if not found or int(found.group(1)) != CLANG_FORMAT:
        skip(f"the tree is formatted by clang-format {CLANG_FORMAT}, this is {version.strip()}")
    return [program, "--dry-run", "--Werror"], [path for path in files if path.suffix in SOURCES]


def shellcheck_command(files):
    return [tool("shellcheck"), "-x"], [path for path in files if is_shell_script(path)]


def main():
    checks = {"format": (format_command, 100), "shellcheck": (shellcheck_command, 3)}
    if len(sys.argv) != 2 or sys.argv[1] not in checks:
        sys.exit(f"usage: style_test.py {' | '.join(checks)}")
    command_of, least = checks[sys.argv[1]]
    command, files = command_of(tracked_files())
    status = subprocess.run([*command, *files], cwd=ROOT).returncode
    print(f"{sys.argv[1]}: {len(files)} files, exit code {status}")
    sys.exit(1 if status != 0 or len(files) < least else 0)


if __name__ == "__main__":
    main()
