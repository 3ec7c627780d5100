#!/bin/sh
# Builds the worker into build/, for make and for wrangler ([build] in wrangler.toml).
set -eu
cd "$(dirname "$0")/.."
. dev/host.sh

load_toolchain && has_tool worker-build worker-build $WORKER_BUILD && has_tool wasm-bindgen wasm-bindgen-cli "$(wasm_bindgen_version)" &&
  [ -x node_modules/.bin/node ] || die "run \`make setup\` first"

mkdir -p build
# Every `wrangler dev` of the tests may call this at the same moment: the first builds, the others wait, then skip.
if command -v flock >/dev/null; then exec 9>build/.lock; flock 9; fi

# Taken before the build: a file saved while it runs makes the next call build again.
now="$WASM_WAY $WASM_BIN $(hash Cargo.toml Cargo.lock build.rs .cargo/config.toml package-lock.json dev/build.sh $(find src -type f))"
if [ -f build/index.js ] && [ "$now" = "$(cat build/.stamp 2>/dev/null)" ]; then
  say "build/ is up to date"
  exit
fi

say "building with $WASM_WAY's rustc"
begun=$(date +%s)
rm -f build/.stamp
# The *_BIN keep worker-build from downloading its own. RUSTC_BOOTSTRAP lets a stable rustc take -Zbuild-std.
PATH=$PWD/dev/toolchain:$PATH COINSLOT_WASM_BIN=$WASM_BIN RUSTC_BOOTSTRAP=1 \
  WASM_BINDGEN_BIN=$PWD/.tools/bin/wasm-bindgen WASM_OPT_BIN=$PWD/node_modules/.bin/wasm-opt ESBUILD_BIN=$PWD/node_modules/.bin/esbuild \
  .tools/bin/worker-build --release --panic-unwind 9>&-
# Function names are a tenth of the size. (`strip = true` in Cargo.toml would take what worker-build reads.)
wasm-opt -all --strip-debug build/index_bg.wasm -o build/index_bg.wasm
echo "$now" >build/.stamp
say "done in $(($(date +%s) - begun))s: $(($(gzip -9c build/index_bg.wasm | wc -c) / 1024)) KiB of wasm gzipped"
