#!/usr/bin/env bash
# cluster/gpu/verify.sh over prebuilt programs, with the fiber device in place of a GPU:
#   verify_script_test.sh VERIFY_SH BUILD_FOLDER MODULE STAND_IN_NCCL_HOME
set -uo pipefail
verify=$1 build=$2 module=$3 nccl=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/bin"
ln -s "$build/weft" "$build/weft_gpu_test" "$folder/bin/"
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

on_fibers=(env WEFT_CUDA_MODULE="$module" CUDA_HOME="$nccl" "$verify" --prebuilt "$folder" --quick)
expect 0 '^links +pass +[0-9]+ .*PASSED' "a part that passes" "${on_fibers[@]}" --part links
expect 0 '^operations +pass' "another" "${on_fibers[@]}" --part ops
expect 1 '^attention +NOT RUN .*no time left' "too little time" "${on_fibers[@]}" --part ops --seconds 5
mkdir -p "$folder/endless/bin"
ln -s "$build/weft" "$folder/endless/bin/"
printf '#!/bin/sh\nexec sleep 1000\n' >"$folder/endless/bin/weft_gpu_test"
chmod +x "$folder/endless/bin/weft_gpu_test"
expect 1 '^links +FAIL .*no end after [0-9]+ s' "a part without an end" "$verify" --prebuilt "$folder/endless" --part links \
  --seconds 6
expect 1 '^links +FAIL' "a machine without a GPU" env WEFT_CUDA_MODULE=/nowhere "$verify" --prebuilt "$folder" --part links
expect 1 'compute-sanitizer was not found' "a missing tool" env -u CUDA_HOME PATH=/usr/bin:/bin CUDA_HOME=/nowhere \
  WEFT_CUDA_MODULE="$module" "$verify" --prebuilt "$folder" --part sanitize
expect 2 'unknown argument --parts' "a wrong option" "$verify" --parts ops
expect 2 'found all-of-it' "a wrong part" "$verify" --part all-of-it
expect 2 'has no folder usr' "a folder without packages" "$verify" --deps "$folder"
exit $((failures > 0))
