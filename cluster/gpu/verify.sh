#!/usr/bin/env bash
# Proves Weft on this machine's GPU, and prints one table. Needs a driver; nvcc, CMake and a build's libraries unless the
# programs come prebuilt (pack.sh). Nothing is fetched.
#   verify.sh [--prebuilt FOLDER] [--build FOLDER] [--deps FOLDER]
#             [--part ops|links|models|sanitize|bench|all]... [--seconds N] [--quick]
# --prebuilt   an unpacked pack.sh archive
# --build      where to build from sources (build/gpu)
# --deps       Debian packages unpacked there (dpkg -x) are used in place of installed ones. Open MPI and oneDNN may be among
#              them or be absent: one rank runs, on the GPU
# --part       what to run; all by default: every operation against its float64 oracle, NCCL in a group of one, every model
#              against the CPU, memory and race checks of operations, training speed beside PyTorch's where torch can be imported
# --seconds    all of it ends by then (530)
# --quick      a small share of each part but the sanitizer: tries this script, proves little
# Exit status: 0 all that was asked for passed, 1 something failed or could not be run, 2 wrong usage.
set -uo pipefail

usage() {
  sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  [ $# -eq 0 ] || echo "verify.sh: $*" >&2
  exit 2
}

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
prebuilt= build= deps= parts=() seconds=530 quick=
while [ $# -gt 0 ]; do
  case $1 in
    --prebuilt) prebuilt=${2-}; [ -d "$prebuilt/bin" ] || usage "--prebuilt: ${2-nothing} has no folder bin"; shift 2 ;;
    --deps) deps=${2-}; [ -d "$deps/usr" ] || usage "--deps: ${2-nothing} has no folder usr"; deps=$(cd "$deps" && pwd); shift 2 ;;
    --build) build=${2-}; [ -n "$build" ] || usage "--build: a folder is missing"; shift 2 ;;
    --part)
      case ${2-} in
        ops | links | models | sanitize | bench) parts+=("$2") ;;
        all) parts+=(ops links models sanitize bench) ;;
        *) usage "--part: found ${2-nothing}; ops, links, models, sanitize, bench or all would be right" ;;
      esac
      shift 2 ;;
    --seconds)
      seconds=${2-}
      [[ $seconds =~ ^[1-9][0-9]*$ ]] || usage "--seconds: found ${2-nothing}; a whole number would be right"
      shift 2 ;;
    --quick) quick=yes; shift ;;
    --help) usage ;;
    *) usage "unknown argument $1" ;;
  esac
done
if [ ${#parts[@]} -eq 0 ]; then
  parts=(ops links models sanitize bench)
  [ -z "$quick" ] || parts=(ops links models bench)
fi

logs=$(mktemp -d)
rows=() failed=0
left() { echo $((seconds - SECONDS)); }

# step NAME MOST_SECONDS COMMAND...: runs it, keeps its output in a log, and adds a row with the log's last `note` line.
step() {
  local name=$1 most=$2 begun=$SECONDS status result note
  shift 2
  local log=$logs/${name//[^a-z0-9]/-}.log
  [ "$most" -le "$(left)" ] || most=$(left)
  if [ "$most" -lt 5 ]; then
    rows+=("$name|NOT RUN|0|no time left")
    failed=1
    return 1
  fi
  echo "== $name (at most $most s)" >&2
  timeout --kill-after=10 "$most" "$@" >"$log" 2>&1 </dev/null
  status=$?
  note=$(grep -hE '^\[  PASSED|^\[  FAILED|ERROR SUMMARY|RACECHECK SUMMARY|no GPU to test|CMake Error|FAILED:' "$log" | tail -1 | cut -c1-90)
  case $status in
    0) result=pass ;;
    124 | 137) result=FAIL note="no end after $most s; $note" ;;
    *) result=FAIL note="status $status; ${note:-$(tail -1 "$log" | cut -c1-90)}" ;;
  esac
  if [ $status -ne 0 ]; then
    failed=1
    tail -40 "$log" >&2
  fi
  rows+=("$name|$result|$((SECONDS - begun))|$note")
  return $status
}

cannot() {
  rows+=("$1|NOT RUN|0|$2")
  failed=1
}

find_tool() {
  local name=$1 folder
  command -v "$name" && return
  for folder in "${CUDA_HOME:-/usr/local/cuda}"/{bin,compute-sanitizer,extras/compute-sanitizer}; do
    [ -x "$folder/$name" ] && echo "$folder/$name" && return
  done
  return 1
}

# The kernels of this machine's GPU alone: compiling for all takes minutes more.
architecture() {
  local found
  found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d '. ')
  case $found in
    '') echo "80-real;90a-real;100-real;100-virtual" ;;
    90) echo 90a-real ;;
    *) echo "$found-real" ;;
  esac
}

# What CMake and the linker need to find unpacked packages, in `unpacked` and the environment.
unpacked=()
use_unpacked() {
  local libraries mpi
  libraries=$(echo "$deps"/usr/lib/*-linux-gnu)
  unpacked=(-DCMAKE_PREFIX_PATH="$deps/usr" -DCMAKE_EXE_LINKER_FLAGS="-Wl,-rpath-link,$libraries"
    -DCMAKE_SHARED_LINKER_FLAGS="-Wl,-rpath-link,$libraries" -DMPI_SKIP_COMPILER_WRAPPER=ON)
  for mpi in "$libraries"/libmpi.so.[0-9]*; do
    [ ! -e "$mpi" ] || unpacked+=(-DMPI_C_HEADER_DIR="$libraries/openmpi/include" -DMPI_C_LIB_NAMES=mpi -DMPI_mpi_LIBRARY="$mpi")
  done
  export PKG_CONFIG_SYSROOT_DIR=$deps PKG_CONFIG_PATH=$libraries/pkgconfig:$deps/usr/share/pkgconfig
  export CPATH=$deps/usr/include:$deps/usr/include/$(basename "$libraries")${CPATH:+:$CPATH}
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

build_programs() {
  local source=$here/../.. nvcc generator=()
  build=${build:-$source/build/gpu}
  command -v cmake >/dev/null || { cannot build "cmake was not found"; return 1; }
  nvcc=$(find_tool nvcc) || { cannot build "nvcc was not found: put it on PATH, or set CUDA_HOME"; return 1; }
  command -v ninja >/dev/null && generator=(-G Ninja)
  [ -z "$deps" ] || use_unpacked
  step configure 120 cmake -S "$source" -B "$build" "${generator[@]}" "${unpacked[@]}" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CXX_FLAGS_RELEASE="-O2 -DNDEBUG" \
    -DWEFT_CUDA=ON -DCMAKE_CUDA_COMPILER="$nvcc" -DWEFT_CUDA_ARCHITECTURES="$(architecture)" -DWEFT_FETCH=OFF \
    -DWEFT_MPI=AUTO -DWEFT_DNNL=AUTO || return
  step build $((seconds * 2 / 3)) cmake --build "$build" --parallel "$(nproc)" --target weft weft_cuda weft_gpu_test weft_bench_gpu_training
}

if [ -n "$prebuilt" ]; then
  bin=$(cd "$prebuilt/bin" && pwd)
  export LD_LIBRARY_PATH=$bin/../lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  benchmarks=$bin/../benchmarks
else
  build_programs
  bin=$build benchmarks=$here/../../tests/benchmarks
fi

gpu_test=$bin/weft_gpu_test

run_ops() {
  if [ -n "$quick" ]; then
    step operations 120 env GTEST_TOTAL_SHARDS=24 GTEST_SHARD_INDEX=5 "$gpu_test" '--gtest_filter=Table/*'
    step attention 60 "$gpu_test" '--gtest_filter=Small/GpuAttention.*'
    return
  fi
  step operations 150 "$gpu_test" '--gtest_filter=Table/*'
  step attention 60 "$gpu_test" '--gtest_filter=*GpuAttention.*'
}

run_links() {
  step links 60 "$gpu_test" '--gtest_filter=Links.*'
}

run_models() {
  if [ -n "$quick" ]; then
    step models 120 "$gpu_test" '--gtest_filter=Registry/*attention_gpt:GpuComparison.*'
    return
  fi
  step models 120 "$gpu_test" '--gtest_filter=Registry/*:GpuComparison.*'
  step "gpt-2 124m" 150 "$gpu_test" '--gtest_filter=GpuGpt2Large.*'
}

# A share of the table: the tools slow kernels down tens of times.
run_sanitize() {
  local tool
  tool=$(find_tool compute-sanitizer) || { cannot sanitize "compute-sanitizer was not found: put it on PATH, or set CUDA_HOME"; return; }
  step memcheck 90 env GTEST_TOTAL_SHARDS=8 GTEST_SHARD_INDEX=1 "$tool" --tool memcheck --error-exitcode 9 "$gpu_test" '--gtest_filter=Table/*'
  step racecheck 90 env GTEST_TOTAL_SHARDS=16 GTEST_SHARD_INDEX=3 "$tool" --tool racecheck --error-exitcode 9 "$gpu_test" '--gtest_filter=Table/*'
}

run_bench() {
  local arguments=(--bench "$bin/weft_bench_gpu_training" --json "$logs/bench.json" --steps 30 --repeats 1)
  command -v python3 >/dev/null || {
    step bench 120 "$bin/weft_bench_gpu_training" 12 768 12 1024 50304 16 16 bf16 10 50 && cat "$logs/bench.log"
    return
  }
  [ -z "$quick" ] || arguments+=(--tiny)
  step bench 300 python3 "$benchmarks/compare_gpu.py" "${arguments[@]}" --seconds "$(($(left) < 300 ? $(left) - 10 : 290))"
  grep -E '^(###|\|)' "$logs/bench.log"
}

if [ -x "$gpu_test" ] && [ $failed -eq 0 ]; then
  "$bin/weft" --version
  for part in "${parts[@]}"; do "run_$part"; done
elif [ $failed -eq 0 ]; then
  cannot "${parts[*]}" "$gpu_test does not exist"
fi

echo
printf '%-12s %-8s %8s  %s\n' part result seconds note
for row in "${rows[@]}"; do
  IFS='|' read -r name result took note <<<"$row"
  printf '%-12s %-8s %8s  %s\n' "$name" "$result" "$took" "$note"
done
echo "logs: $logs"
exit $failed
