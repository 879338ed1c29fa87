#!/usr/bin/env bash
# From a bare Debian 12 to a quantized model and its perplexity: installs what is missing, builds
# billm, makes the demo model (SmolLM2-135M-Instruct), quantizes it with each method below,
# evaluates the original and the packed results, and prints a table. Steps that are done are
# skipped; figures that were not measured in this run are marked (cached).
#
# Usage: tools/quickstart.sh [--help]
#
# Environment:
#   BILLM_DATA_DIR   directory that holds wikitext2/ (wiki.valid.raw, wiki.test.raw). Without it a
#                    short text shipped with billm is used: a demonstration, no benchmark
#   BILLM_HOME       where models and results go (default ~/.local/share/billm)
#   BILLM_TORCH_DIR, BILLM_PYTHON, BILLM_VENV, BILLM_JOBS, CXX: see tools/setup.sh --help
set -euo pipefail

# What the table shows: label | name of its files | flags of `billm quantize`.
readonly methods=(
  "billm|billm|--method billm"
  "stbllm 4:8|stbllm-4-8|--method stbllm --nm 4:8"
)

case "${1:-}" in
  -h | --help)
    sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
  "") ;;
  *)
    printf 'quickstart.sh: error: unknown argument %s\n   usage: tools/quickstart.sh [--help]\n' \
      "$1" >&2
    exit 2
    ;;
esac

# shellcheck source=tools/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export LC_ALL=C

digest_of_text() { sha256sum | cut -d' ' -f1; }
digest_of_file() { digest_of_text <"$1"; }
# Names and contents of all files below a directory.
digest_of_directory() {
  (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum) | digest_of_text
}

# Sets calibration and evaluation (flags of billm), text_name, and text_digest.
find_text() {
  local data="${BILLM_DATA_DIR:-}" demo="$billm_root/configs/demo-text"
  if [[ -n "$data" && -f "$data/wikitext2/wiki.test.raw" ]]; then
    BILLM_DATA_DIR="$(absolute "$data")"
    export BILLM_DATA_DIR
    text_name="wikitext2, 8 windows of 2048 tokens"
    calibration=(--calib wikitext2 --nsamples 8 --seqlen 2048)
    evaluation=(--ppl wikitext2 --windows 8)
    text_digest="$(digest_of_directory "$BILLM_DATA_DIR/wikitext2")"
    say "text: wikitext2 in $BILLM_DATA_DIR"
  else
    text_name="demo text shipped with billm, windows of 512 tokens: a demonstration, no benchmark"
    calibration=(--calib "$demo/calibration.txt" --nsamples 8 --seqlen 512)
    evaluation=(--ppl "$demo/evaluation.txt" --seqlen 512)
    text_digest="$(digest_of_directory "$demo")"
    if [[ -n "$data" ]]; then note "BILLM_DATA_DIR=$data holds no wikitext2/wiki.test.raw"; fi
    say "text: wikitext2 was not found (BILLM_DATA_DIR); using the $text_name"
  fi
}

# is_cached STAMP KEY FILE: FILE was made by the step with this key.
is_cached() { [[ -s "$3" && "$(cat "$1" 2>/dev/null)" == "$2" ]]; }

# run_billm ARGUMENTS...: its own error line says what is wrong.
run_billm() {
  local status=0
  "$BILLM_BINARY" "$@" >&2 || status=$?
  ((status == 0)) || die "billm $1 failed with exit code $status" "the line above says why"
}

# quantize NAME FLAGS...: $results/NAME (packed model) and NAME.quantize.json.
# Sets was_cached to yes or no.
quantize() {
  local name="$1" json="$results/$1.quantize.json" stamp="$results/$1.quantize.stamp" key
  shift
  key="$(printf '%s\n' "$binary_digest" "$model_digest" "$text_digest" "$@" "${calibration[@]}" |
    digest_of_text)"
  # The stamp holds the result's digest, too: a result that was touched is made again.
  if [[ -d "$results/$name" ]] &&
    is_cached "$stamp" "$key $(digest_of_directory "$results/$name")" "$json"; then
    say "quantize $name: done ($results/$name)"
    was_cached=yes
    return
  fi
  say "quantize $name: $* ${calibration[*]}"
  rm -f "$stamp"
  run_billm quantize --model "$model" "$@" "${calibration[@]}" --out "$results/$name" --overwrite \
    --json "$json"
  printf '%s\n' "$key $(digest_of_directory "$results/$name")" >"$stamp"
  was_cached=no
}

# evaluate NAME DIRECTORY DIGEST: NAME.eval.json. Sets was_cached to yes or no.
evaluate() {
  local name="$1" directory="$2" json="$results/$1.eval.json" stamp="$results/$1.eval.stamp" key
  key="$(printf '%s\n' "$binary_digest" "$3" "$text_digest" "${evaluation[@]}" | digest_of_text)"
  if is_cached "$stamp" "$key" "$json"; then
    say "evaluate $name: done"
    was_cached=yes
    return
  fi
  say "evaluate $name: ${evaluation[*]}"
  rm -f "$stamp"
  run_billm eval --model "$directory" "${evaluation[@]}" --json "$json"
  printf '%s\n' "$key" >"$stamp"
  was_cached=no
}

billm_setup billm
home="$(billm_home)"
model="$home/models/smollm2-135m-instruct"
results="$home/results/quickstart"
mkdir -p "$results" 2>/dev/null ||
  die "cannot create $results" "set BILLM_HOME to a directory you may write to"
make_demo_model "$model"
find_text
need_space "$results" 1 "the results" "set BILLM_HOME"

binary_digest="$(digest_of_file "$BILLM_BINARY")"
model_digest="$(digest_of_directory "$model")"
evaluate original "$model" "$model_digest"
table=(--original "$results/original.eval.json" "$was_cached")
for method in "${methods[@]}"; do
  IFS='|' read -r label name flags <<<"$method"
  read -r -a flags <<<"$flags"
  quantize "$name" "${flags[@]}"
  table+=(--row "$label" "$results/$name.quantize.json" "$was_cached")
  evaluate "$name" "$results/$name" "$(digest_of_directory "$results/$name")"
  table+=("$results/$name.eval.json" "$was_cached")
done

printf '\nbinary   %s\nmodel    %s\nresults  %s\ntext     %s\n\n' \
  "$BILLM_BINARY" "$model" "$results" "$text_name"
"$BILLM_PYTHON" "$billm_root/tools/print_table.py" "${table[@]}"
printf '\nNext: %s --help\n' "$BILLM_BINARY"
