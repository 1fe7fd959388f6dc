#!/usr/bin/env bash
# Packs what run.sh needs beside the working tree for a machine like this one without a network: Node, npm packages,
# dist/ and the native addon.
#
#   bench/gpu/carry.sh FILE.tar.xz      here, after `npm run setup`
#   tar xJf FILE.tar.xz                 there, in the root of the working tree; then
#   PATH=$PWD/build/carried:$PATH bench/gpu/run.sh OUT
set -eu
[ $# -eq 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
file=$(realpath "$1")
cd "$(dirname "$0")/../.."
node=$(node -p process.execPath)
tar -cf - --exclude='*.map' --transform="s#^${node#/}\$#build/carried/node#" -C "$PWD" \
  node_modules dist native/build/.stamp native/build/Release/upgc.node -C / "${node#/}" | xz -6 -T0 > "$file"
ls -l "$file"
