#!/usr/bin/env python3
"""Who may include whom: checks every #include of the project's own headers (docs/developing.md), and
that the Torch-free folders include nothing of Torch."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# folder -> folders it may include besides itself.
ALLOWED = {
    "base": set(),
    "checkpoint": {"base"},
    "tokenizer": {"base", "checkpoint"},
    "hub": {"base", "checkpoint"},
    "parquet": {"base", "hub"},
    "codes": {"base"},
    "kernels": {"base"},
    "pack": {"base", "checkpoint", "codes", "kernels"},
    "quantize": {"base", "codes", "kernels", "calibrate/stats.h"},
    "report": {"base", "codes"},
    "model": {"base", "checkpoint", "codes", "kernels", "pack"},
    "calibrate": {"base", "checkpoint", "model"},
    "torch_cuda": {"model"},
    "eval": {"base", "checkpoint", "model", "calibrate"},
    "generate": {"base", "checkpoint", "model"},
    "bench": {"base", "codes", "kernels", "pack", "model", "generate"},
    "learn": {"base", "checkpoint", "codes", "model", "calibrate", "report"},
    "pipeline": {"base", "checkpoint", "codes", "kernels", "pack", "model", "calibrate", "quantize",
                 "report", "learn"},
    "cli": {"base", "checkpoint", "tokenizer", "hub", "codes", "kernels", "pack", "model",
            "calibrate", "quantize", "report", "learn", "pipeline", "eval", "generate", "bench"},
}
TORCH_FREE = {"base", "checkpoint", "tokenizer", "hub", "parquet", "codes", "kernels", "pack",
              "quantize", "report"}
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.MULTILINE)


def sources():
    for folder in ALLOWED:
        roots = [ROOT / "kernels"] if folder == "kernels" else [ROOT / "src" / folder,
                                                                ROOT / "include/billm" / folder]
        for root in roots:
            for path in sorted(root.rglob("*")):
                if path.suffix in (".h", ".cpp", ".cu", ".cuh"):
                    yield folder, path


def problem(folder, path, header):
    if re.match(r"(torch|ATen|c10)/", header):
        free = folder in TORCH_FREE or str(path).endswith("calibrate/stats.h")
        return "includes Torch" if free else None
    if header.startswith("kernels/"):
        other, inside = "kernels", header
    elif header.startswith("billm/"):
        other, inside = header.split("/")[1], header.removeprefix("billm/")
    else:
        return None
    if other == folder or other in ALLOWED[folder] or inside in ALLOWED[folder]:
        return None
    return None if header == "billm/models_json.h" else f"{folder} may not include {header}"


def main():
    checked, problems = 0, []
    for folder, path in sources():
        for header in INCLUDE.findall(path.read_text()):
            checked += 1
            found = problem(folder, path, header)
            if found:
                problems.append(f"{path.relative_to(ROOT)}: {found}")
    print("\n".join(problems))
    print(f"{checked} includes checked, {len(problems)} against the rules")
    sys.exit(1 if problems or checked < 100 else 0)


if __name__ == "__main__":
    main()
