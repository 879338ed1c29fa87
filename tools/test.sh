#!/usr/bin/env bash
# Installs what is missing, builds everything, and runs all tests: those of the release build, with
# clang-format and shellcheck over the tree; and, built by clang, which is installed for it, the
# Torch-free unit tests under the address and undefined-behaviour sanitizers (those of parsers there
# alone, the others again) and each fuzz target for some seconds. Ends with what failed, what was
# skipped and why, and as the last line "N passed, N failed, N skipped".
# Exit code 0 only if something ran and nothing failed.
#
# Usage: tools/test.sh [--slow] [--help]
#   --slow  also run the tests labelled slow
#
# Environment:
#   BILLM_DATA_DIR      data for tests that compare with published figures; without it they skip
#   BILLM_REQUIRE_DATA  1: a test whose data are missing fails instead of skipping
#   BILLM_DEMO_MODEL    directory of the demo model (default: made once below BILLM_HOME)
#   BILLM_HOME, BILLM_TORCH_DIR, BILLM_PYTHON, BILLM_VENV, BILLM_JOBS, CXX: see tools/setup.sh
set -euo pipefail

slow=no
for argument in "$@"; do
  case "$argument" in
    -h | --help)
      sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0"
      exit 0
      ;;
    --slow) slow=yes ;;
    *)
      printf 'test.sh: error: unknown argument %s\n   usage: tools/test.sh [--slow] [--help]\n' \
        "$argument" >&2
      exit 2
      ;;
  esac
done

# shellcheck source=tools/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# run_ctest PRESET CTEST_ARGUMENTS...: leaves build/PRESET/tests.xml. A failing test is not an error
# here: the summary reads the file, and a file that is missing or empty counts as a failure.
run_ctest() {
  local directory="$billm_root/build/$1"
  # One more than there are cores: some tests wait for a server, or for Python.
  local arguments=(--test-dir "$directory" --output-on-failure -j"$(($(nproc) + 1))"
    --no-tests=error)
  if [[ "$slow" == no ]]; then arguments+=(-LE "^slow$"); fi
  say "tests: $1 build"
  rm -rf "$directory/tests.xml" "$directory/results"
  ctest "${arguments[@]}" --output-junit "$directory/tests.xml" "${@:2}" || true
}

if [[ -n "${BILLM_DATA_DIR:-}" ]]; then
  BILLM_DATA_DIR="$(absolute "$BILLM_DATA_DIR")"
  export BILLM_DATA_DIR
  say "data: $BILLM_DATA_DIR"
else
  say "data: BILLM_DATA_DIR is not set; tests that need it skip"
fi
# What Python compiles is kept for the next time, beside the builds.
export PYTHONPYCACHEPREFIX="$billm_root/build/pycache"
unset PYTHONDONTWRITEBYTECODE
# The sanitizers' build needs no Python: it begins while packages are installed, on one processor. What
# goes wrong with it is said when its turn has come.
rm -f "$billm_root/build/asan/tests.xml"
# Of another compiler, as it was once: cmake would forget the preset's settings.
grep -qs "^CMAKE_CXX_COMPILER:.*clang" "$billm_root/build/asan/CMakeCache.txt" ||
  rm -rf "$billm_root/build/asan"
check_machine
install_packages missing_packages
early_build=""
if (install_packages missing_clang_packages); then
  mkdir -p "$billm_logs"
  (BILLM_JOBS=1 build_preset asan -- >"$billm_logs/early-asan.log" 2>&1) &
  early_build=$!
fi

release_arguments=(-DBILLM_PARSERS_SANITIZED=ON)
billm_setup
BILLM_DEMO_MODEL="$(absolute "${BILLM_DEMO_MODEL:-$(billm_home)/models/smollm2-135m-instruct}")"
export BILLM_DEMO_MODEL
make_demo_model "$BILLM_DEMO_MODEL"

(install_packages missing_style_packages) || note "the checks of the tree's style skip or fail"
run_ctest release
export UBSAN_OPTIONS="print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
# One build is enough for comparisons of long texts with the Python libraries (tests/CMakeLists.txt
# leaves out whole files of them), for what takes how long, and for whether several threads or
# instruction sets give the same bytes; under the sanitizers run the rest (every method, shape and
# setting too) and the fuzz targets.
left_out=('*MistralModelFiles*' '*ConvertedToTokenizerJson*' '*FilesBesideTheModel*'
  '*WikiText2HasTheKnownTokenCounts*' '*LongTextsAreNotQuadratic*'
  '*SameBytesForThreadsAndTargets*' '*SameBytesForAnyNumberOfThreads*')
# Last, so that a machine where clang cannot be had has run the rest: these count as failed there.
if [[ -n "$early_build" ]]; then wait "$early_build" || true; fi
if (install_packages missing_clang_packages && build_preset asan --); then
  BILLM_TESTS_LEFT_OUT="$(IFS=: && printf '%s' "${left_out[*]}")" run_ctest asan -L "unit|fuzz"
fi

if [[ "$slow" == no ]]; then
  note "tests labelled slow were left out; tools/test.sh --slow runs them"
fi
"$BILLM_PYTHON" "$billm_root/tools/summarize_tests.py" \
  "release=$billm_root/build/release/tests.xml" "asan=$billm_root/build/asan/tests.xml"
