#!/usr/bin/env python3
"""Runs a script of this folder that computes reference values, or gives out again what it computed from
the same input: importing torch and transformers takes seconds, encoding long texts more.

Usage: cached_reference.py SCRIPT ARGUMENT...
With BILLM_REFERENCE_DIR set, outputs and standard output of the scripts below are kept there under
the SHA-256 of the script, the versions of its packages and its arguments: of files and directories
their bytes, not their paths. A run that fails is not kept. Other scripts just run.
"""

import datetime
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "safetensors", "tokenizers", "torch", "transformers")


def tokenizer_outputs(arguments):
    if arguments[0] == "convert":
        return list(range(2, len(arguments), 2))
    return list(range(4, len(arguments), 3))


# script -> the places of the arguments that it writes to, files or directories
OUTPUTS = {
    "chat_reference.py": lambda arguments: [],
    "generate_reference.py": lambda arguments: [],
    "make_tiny_model.py": lambda arguments: [0],
    "make_torch_files.py": lambda arguments: [1],
    "reference_nll.py": lambda arguments: [],
    "sampler_reference.py": lambda arguments: [0],
    "tokenizer_reference.py": tokenizer_outputs,
}


def add_input(digest, word):
    """An argument: of CLASS:FOLDER the class and the folder, of what exists its name and bytes."""
    label, colon, rest = word.partition(":")
    path = Path(rest if colon and Path(rest).exists() else word)
    if not path.is_absolute() or not path.exists():
        digest.update(f"word {word}\n".encode())
        return
    if colon:
        digest.update(f"label {label}\n".encode())
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    # Temporary directories have random names.
    digest.update(f"path {re.sub('^billm-.*', '', path.name)}\n".encode())
    for file in files:
        if not file.is_file():
            continue
        data = file.read_bytes()
        name = file.relative_to(path) if path.is_dir() else ""
        digest.update(f"file {name} {len(data)}\n".encode() + data)


def key(script, arguments, outputs):
    digest = hashlib.sha256(script.read_bytes())
    for package in PACKAGES:
        try:
            digest.update(f"{package} {metadata.version(package)}\n".encode())
        except metadata.PackageNotFoundError:
            digest.update(f"no {package}\n".encode())
    if script.name == "chat_reference.py":  # LLaMA 3.2's template says today's date
        digest.update(f"today {datetime.date.today()}\n".encode())
    for place, word in enumerate(arguments):
        if place in outputs:
            digest.update(b"output\n")
        else:
            add_input(digest, word)
    return digest.hexdigest()


def copy(source, target):
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def main():
    script, arguments = Path(sys.argv[1]), sys.argv[2:]
    cache, outputs_of = os.environ.get("BILLM_REFERENCE_DIR"), OUTPUTS.get(script.name)
    if not cache or not outputs_of:
        os.execv(sys.executable, [sys.executable, str(script), *arguments])
    outputs = outputs_of(arguments)
    kept = Path(cache) / key(script, arguments, outputs)
    if not kept.is_dir():
        result = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE)
        if result.returncode != 0:
            sys.stdout.buffer.write(result.stdout)
            sys.exit(result.returncode)
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix="new-", dir=kept.parent))
        (made / "stdout").write_bytes(result.stdout)
        for place in outputs:
            copy(Path(arguments[place]), made / str(place))
        try:
            made.rename(kept)
        except OSError:  # another process was faster
            shutil.rmtree(made)
        sys.stdout.buffer.write(result.stdout)
        return
    for place in outputs:
        copy(kept / str(place), Path(arguments[place]))
    sys.stdout.buffer.write((kept / "stdout").read_bytes())


if __name__ == "__main__":
    main()
