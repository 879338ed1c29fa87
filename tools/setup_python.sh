# shellcheck shell=bash
# LibTorch and the Python packages, which come with it. tools/setup.sh sources this; it is not run.

: "${billm_root:?is set by tools/setup.sh}" "${billm_cache:?}" "${billm_logs:?}"
readonly requirements="$billm_root/tools/requirements.txt"
readonly venv_gb=8  # torch with its CUDA libraries 5 GB, pip's downloads 3 GB while it installs

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

# find_broken PYTHON FILE: sets `broken` to the requirements that are missing from PYTHON or incomplete.
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
    # --no-compile: the few modules that are imported are compiled then.
    pip_install pip "$venv/bin/python" --no-compile -r "$pins" ||
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
      die "BILLM_PYTHON=$BILLM_PYTHON: numpy, tokenizers, safetensors, gguf or pyarrow is missing" \
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
