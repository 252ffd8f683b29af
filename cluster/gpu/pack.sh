#!/usr/bin/env bash
# Packs what verify.sh needs on a machine that has a GPU, a driver and neither Weft's libraries nor a compiler:
#   cluster/gpu/pack.sh BUILD_FOLDER OUTPUT.tar.xz [CUDA_MODULE] [MOST_MIB]
# Exit status 2 when it is larger than MOST_MIB (60); it is there nevertheless.
# Inside: bin (programs and the CUDA module, stripped), lib (every shared library that they need but the C library's and the
# driver's), benchmarks, verify.sh. Unpack it anywhere and run ./verify.sh --prebuilt . there.
set -euo pipefail

fail() {
  echo "pack.sh: $*" >&2
  exit 2
}

[ $# -ge 2 ] && [ $# -le 4 ] || fail "usage: pack.sh BUILD_FOLDER OUTPUT.tar.xz [CUDA_MODULE] [MOST_MIB]"
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
build=$1 output=$2 module=${3:-$1/libweft_cuda.so} most_mib=${4:-60}
programs=(weft weft_gpu_test weft_bench_gpu_training)
for program in "${programs[@]}"; do
  [ -x "$build/$program" ] || fail "$build/$program does not exist; build the target $program first"
done
[ -f "$module" ] || fail "$module does not exist; build the target weft_cuda with WEFT_CUDA=ON"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder"/{bin,lib,benchmarks}
for program in "${programs[@]}"; do cp "$build/$program" "$folder/bin/"; done
cp "$module" "$folder/bin/libweft_cuda.so"
cp "$root"/tests/benchmarks/{compare_gpu,peer_gpt_gpu,peer_gpt,measure}.py "$folder/benchmarks/"
cp "$root/cluster/gpu/verify.sh" "$folder/"

# The C library belongs to the loader of the machine it runs on, the driver to its kernel.
stays='/(ld-linux[^/]*|libc|libm|libdl|librt|libpthread|libresolv|libutil|libcuda|libnvidia[^/]*)\.so'
ldd "$folder"/bin/* 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u | grep -Ev "$stays" |
  while read -r library; do cp -L "$library" "$folder/lib/"; done
missing=$(ldd "$folder"/bin/* | awk '/not found/ {print $1}' | sort -u | tr '\n' ' ')
[ -z "$missing" ] || fail "not found: $missing"
find "$folder/bin" "$folder/lib" -type f -exec strip --strip-unneeded {} + 2>/dev/null || true

tar -C "$folder" -c . | xz -T0 -"${WEFT_PACK_LEVEL:-6}" >"$output"
bytes=$(stat -c %s "$output")
echo "$output: $((bytes >> 10)) KiB"
[ "$bytes" -le $((most_mib << 20)) ] || fail "$output is larger than $most_mib MiB"
