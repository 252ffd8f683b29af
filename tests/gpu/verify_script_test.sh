#!/usr/bin/env bash
# cluster/gpu/verify.sh over prebuilt programs and over a build from sources whose tools are stand-ins, and what pack.sh packs,
# with the fiber device in place of a GPU:
#   verify_script_test.sh VERIFY_SH BUILD_FOLDER MODULE STAND_IN_NCCL_HOME
set -uo pipefail
verify=$1 build=$2 module=$3 nccl=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

# expect STATUS TEXT WHAT COMMAND...: runs it, and looks for the status and for a line that matches in what it says.
expect() {
  local status=$1 text=$2 what=$3 said found
  shift 3
  said=$("$@" 2>&1)
  found=$?
  if [ $found -ne "$status" ] || ! grep -Eq -- "$text" <<<"$said"; then
    echo "FAILED: $what: status $found, expected $status and a line like '$text' in:"
    echo "$said"
    failures=$((failures + 1))
  fi
}

# program FILE: an executable script of standard input.
program() {
  mkdir -p "$(dirname "$1")"
  { echo '#!/bin/sh'; cat; } >"$1"
  chmod +x "$1"
}

# Prebuilt programs.
mkdir "$folder/bin"
ln -s "$build"/{weft,weft_gpu_test,weft_bench_gpu_training} "$folder/bin/"
ln -s "$(dirname "$verify")/../../tests/benchmarks" "$folder/benchmarks"
on_fibers=(env WEFT_CUDA_MODULE="$module" CUDA_HOME="$nccl")
prebuilt=("${on_fibers[@]}" "$verify" --prebuilt "$folder" --quick)
expect 0 '^links +pass +[0-9]+ .*PASSED' "a part that passes" "${prebuilt[@]}" --part links
expect 0 '^operations +pass' "another" "${prebuilt[@]}" --part ops
expect 0 '^\| Weft, tuned \| [0-9]+ \| [0-9]+' "the table of benchmarks" "${prebuilt[@]}" --part bench
expect 1 '^attention +NOT RUN .*no time left' "too little time" "${prebuilt[@]}" --part ops --seconds 4
program "$folder/endless/bin/weft_gpu_test" <<<'exec sleep 1000'
ln -s "$build/weft" "$folder/endless/bin/"
expect 1 '^links +FAIL .*no end after [0-9]+ s' "a part without an end" "$verify" --prebuilt "$folder/endless" --part links \
  --seconds 6
expect 1 '^links +FAIL +[0-9]+ .*no GPU to test' "a machine without a GPU" env WEFT_CUDA_MODULE=/nowhere "$verify" \
  --prebuilt "$folder" --part links

# The sanitizer.
expect 1 'compute-sanitizer was not found' "a missing tool" env PATH=/usr/bin:/bin CUDA_HOME=/nowhere \
  WEFT_CUDA_MODULE="$module" "$verify" --prebuilt "$folder" --part sanitize
program "$folder/clean/bin/compute-sanitizer" <<<'echo "========= ERROR SUMMARY: 0 errors"'
expect 0 '^racecheck +pass +[0-9]+ .*0 errors' "a clean run of it" env CUDA_HOME="$folder/clean" "$verify" \
  --prebuilt "$folder" --part sanitize
program "$folder/dirty/bin/compute-sanitizer" <<<'echo "========= ERROR SUMMARY: 3 errors"; exit 9'
expect 1 '^memcheck +FAIL +[0-9]+ .*status 9; .*3 errors' "errors that it finds" env CUDA_HOME="$folder/dirty" "$verify" \
  --prebuilt "$folder" --part sanitize

# From sources: `cmake` takes the programs that are there, if it was asked to build for this machine's GPU.
tools=$folder/tools
program "$tools/nvidia-smi" <<<'echo 9.0'
program "$tools/nvcc" </dev/null
program "$tools/cmake" <<END
case "\$*" in
  *-DWEFT_CUDA_ARCHITECTURES=90a-real*) [ -z "\$BROKEN" ] || { echo "CMake Error: no \$BROKEN"; exit 1; } ;;
  *"--target weft weft_cuda weft_gpu_test weft_bench_gpu_training") ln -sf "$build"/weft* "\$2" ;;
  *) exit 3 ;;
esac
END
sources=(env PATH="$tools:$PATH" "${on_fibers[@]:1}" "$verify" --build "$folder/built" --quick --part links)
mkdir "$folder/built"
expect 0 '^build +pass' "a build that passes" "${sources[@]}"
expect 1 '^configure +FAIL +[0-9]+ .*no Boost' "a library that is missing" env BROKEN=Boost "${sources[@]}"
mv "$tools/nvcc" "$tools/no-nvcc"
[ -x /usr/bin/nvcc ] || expect 1 '^build +NOT RUN .*nvcc was not found' "a missing compiler" env \
  PATH="$tools:/usr/bin:/bin" CUDA_HOME=/nowhere "$verify" --build "$folder/none" --part links

# What travels.
pack=$(dirname "$verify")/pack.sh
expect 2 'none/weft does not exist' "a build without its programs" "$pack" "$folder/none" "$folder/a.tar.xz" "$module"
expect 0 'KiB' "an archive" env WEFT_PACK_LEVEL=0 "$pack" "$build" "$folder/a.tar.xz" "$module"
mkdir "$folder/there"
tar -C "$folder/there" -xf "$folder/a.tar.xz"
expect 0 '^links +pass' "its programs" env CUDA_HOME="$nccl" "$folder/there/verify.sh" --prebuilt "$folder/there" --quick \
  --part links
expect 2 'larger than 0 MiB' "an archive that is too large" env WEFT_PACK_LEVEL=0 "$pack" "$build" "$folder/a.tar.xz" \
  "$module" 0

# Wrong usage.
expect 2 'unknown argument --parts' "a wrong option" "$verify" --parts ops
expect 2 'found all-of-it' "a wrong part" "$verify" --part all-of-it
expect 2 'has no folder usr' "a folder without packages" "$verify" --deps "$folder"
exit $((failures > 0))
