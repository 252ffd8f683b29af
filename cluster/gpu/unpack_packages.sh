#!/usr/bin/env bash
# Downloads the Debian 12 packages that a build needs and unpacks them in a folder, for verify.sh --deps on a machine where
# they cannot be installed. Needs apt-get and dpkg, not root.
#   cluster/gpu/unpack_packages.sh FOLDER
set -euo pipefail

packages=(libopenmpi-dev libopenmpi3 libevent-core-2.1-7 libevent-pthreads-2.1-7 libpciaccess0
  libdnnl-dev libdnnl2 ocl-icd-opencl-dev ocl-icd-libopencl1 opencl-c-headers
  libboost1.74-dev libboost-program-options1.74-dev libboost-program-options1.74.0 libboost-iostreams1.74-dev
  libboost-iostreams1.74.0 libboost-context1.74-dev libboost-context1.74.0 libboost-regex1.74-dev libboost-regex1.74.0
  libhwloc-dev libhwloc15 nlohmann-json3-dev libspdlog-dev libspdlog1.10 libfmt-dev libfmt9 libgtest-dev libgmock-dev googletest)

[ $# -eq 1 ] || { sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
archives=$(mktemp -d)
trap 'rm -rf "$archives"' EXIT
(cd "$archives" && apt-get download -q=2 "${packages[@]}")
for archive in "$archives"/*.deb; do dpkg -x "$archive" "$folder"; done
# What a build does not read.
rm -rf "$folder"/usr/share/{doc,man,lintian,bug} "$folder"/usr/lib/*/fortran
find "$folder" -name '*.a' ! -name 'libg*' -delete
echo "$folder: $(du -sm "$folder" | cut -f1) MiB"
