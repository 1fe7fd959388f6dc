#!/usr/bin/env bash
# Rebuilds, checks and measures upgc on a machine with an NVIDIA GPU, from a working tree and without a network.
#
#   bench/gpu/run.sh OUT [step …]    steps: build, device, whole, compare, phi4, ladder; all without one
#
# OUT gets a log for each step, the results as JSON, and summary.txt. A step that fails or outlasts its limit does not
# keep the next from running; the exit status is then 1. Node must be on PATH and node_modules in place; carry.sh packs
# both for a machine that cannot install them. compare also needs python3 with torch, transformers, safetensors, numpy.
set -u -o pipefail
self=$(realpath "$0")
cd "$(dirname "$self")/../.." || exit 1
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$self" >&2; exit 2; }
mkdir -p "$1" || exit 1
out=$(cd "$1" && pwd)
shift
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

# The same names as native/setup.mjs.
has_clang() {
  local name
  for name in clang clang-21 clang-20 clang-19 clang-18 clang-17 clang-16; do
    command -v "$name" > /dev/null && return
  done
  return 1
}

step_build() {
  node native/setup.mjs --dist || return
  # The addon asks for the tools of the CPU device before it is built.
  if has_clang || [ ! -f native/build/Release/upgc.node ]; then
    node native/setup.mjs --addon || return
  else
    echo 'no clang: the addon stays as it came'
  fi
  node node_modules/typescript/bin/tsc -p bench/tsconfig.json
}

# Tests of runs on the GPU; vitest puts names of devices in quotes. That none has failed is not enough: some must run.
vitest_on_gpu() {
  local names="on '?cuda" log="$scratch/vitest.log"
  if ! has_clang; then
    names="^(?!.*those of the CPU device).*$names"
    echo 'no clang: without the test that runs the CPU device beside the GPU; greedy-text.test.ts has its texts'
  fi
  node node_modules/vitest/vitest.mjs run "$@" -t "$names" 2>&1 | tee "$log" || return
  grep -qE '^[1-9][0-9]* passed, 0 failed' "$log"
}

# One file after another, and nothing beside them: they look at the memory of the whole GPU.
step_device() {
  vitest_on_gpu --no-file-parallelism test/devices/cuda
}

# All golden models, the examples' greedy texts, every kernel against the interpreter.
step_whole() {
  vitest_on_gpu --exclude 'test/devices/cuda*.test.ts' test/devices
}

step_compare() {
  python3 bench/gpu/compare/compare.py --json "$out/compare.json"
}

step_phi4() {
  node dist/cli/main.js compile models/phi4.graph.ts --weights random:1 --quantize q4g32 --target cuda --kv f16 \
    --context 4096 --chunk 512 --out "$scratch/phi4" &&
    node build/bench/gpu/main.js "$scratch/phi4" --json "$out/phi4.json"
  local status=$?
  rm -rf "$scratch/phi4"
  return $status
}

step_ladder() {
  TMPDIR=$scratch node dist/cli/main.js bench ladder models/phi4.graph.ts --weights random:1 --quantize q4g32 \
    --target cuda --device cuda --samples 3 --json "$out/ladder.json"
}

all='build device whole compare phi4 ladder'
declare -A limits=([build]=60 [device]=60 [whole]=120 [compare]=150 [phi4]=90 [ladder]=240)

# A limit is kept by running the step in a process of its own: this script, with the step's name.
if [ -n "${UPGC_STEP:-}" ]; then
  "step_$UPGC_STEP"
  exit
fi

for step in "$@"; do
  [ -n "${limits[$step]:-}" ] || { echo "no step '$step': $all" >&2; exit 2; }
done
[ $# -gt 0 ] || set -- $all

failed=0
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1 | tee "$out/summary.txt" || failed=1
echo "node $(node --version), $(nproc) processors" | tee -a "$out/summary.txt"
begun=$SECONDS
for step in "$@"; do
  echo "== $step (at most ${limits[$step]} s)"
  at=$SECONDS
  UPGC_STEP=$step timeout --kill-after=5 "${limits[$step]}" bash "$self" "$out" 2>&1 | tee "$out/$step.log"
  status=${PIPESTATUS[0]}
  case $status in
    0) verdict=passed ;;
    124 | 137) verdict='FAILED: outlasted its limit' failed=1 ;;
    *) verdict="FAILED with $status" failed=1 ;;
  esac
  printf '%-8s %4d s  %s\n' "$step" $((SECONDS - at)) "$verdict" | tee -a "$out/summary.txt"
done
printf '%-8s %4d s\n' all $((SECONDS - begun)) | tee -a "$out/summary.txt"
echo '== summary'
for step in "$@"; do
  case $step in
    device | whole) grep -hE '^[0-9]+ passed' "$out/$step.log" | sed "s/^/$step: /" ;;
    compare) grep -hE 'passed:|FAILED|for scale' "$out/$step.log" ;;
    phi4) grep -hE 'ceiling|decode at|prefill of' "$out/$step.log" ;;
    ladder) grep -h '^|' "$out/$step.log" ;;
  esac
done | tee -a "$out/summary.txt"
exit $failed
