#!/usr/bin/env bash
# Runs one libFuzzer target for some seconds on a copy of its seeds, so that the checkout stays as it
# is. An input that crashes it is kept, and the last lines say how to run it again.
#
# Usage: run_fuzz.sh PROGRAM SEEDS CRASHES SECONDS
set -euo pipefail

program="$1" seeds="$2" crashes="$3" seconds="$4"
name="$(basename "$program")"
corpus="$(mktemp -d "${TMPDIR:-/tmp}/billm-fuzz-XXXXXX")"
trap 'rm -rf "$corpus"' EXIT
[[ -n "$(ls -A "$seeds")" ]] || { printf '%s: no seeds there\n' "$seeds" >&2; exit 1; }
mkdir -p "$crashes"

# The seeds themselves first, each once: an old finding that is back fails whatever the time.
# One input may take 10 s and 512 MB: a file of some kilobytes must not cost more.
limits=(-timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512)
fuzz() {
  "$program" "${limits[@]}" -artifact_prefix="$crashes/$name-" -print_final_stats=1 "$@" && return
  printf '\n%s failed on the input named above (new ones are kept in %s); again with\n  %s FILE\n' \
    "$name" "$crashes" "$program"
  printf 'then fix the parser and add the input to %s\n' "$seeds"
  exit 1
}
mapfile -d '' -t files < <(find "$seeds" -type f -print0)
fuzz "${files[@]}"
cp "${files[@]}" "$corpus"
fuzz -max_total_time="$seconds" -seed=1 "$corpus"
