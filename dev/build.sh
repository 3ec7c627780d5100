#!/bin/sh
# Builds the worker into build/, for make and for wrangler ([build] in wrangler.toml).
#   COINSLOT_FEATURES=panic-probe COINSLOT_BUILD_DIR=build/probe: another build beside it, for a test.
set -eu
cd "$(dirname "$0")/.."
. dev/host.sh

load_toolchain && has_tool worker-build worker-build $WORKER_BUILD && has_tool wasm-bindgen wasm-bindgen-cli "$(wasm_bindgen_version)" &&
  [ -f node_modules/.coinslot ] || die "run \`make setup\` first"

features=${COINSLOT_FEATURES:-}
out=${COINSLOT_BUILD_DIR:-build}
[ -z "$features" ] || [ "$out" != build ] || die "COINSLOT_FEATURES needs a COINSLOT_BUILD_DIR of its own"
mkdir -p "$out"

# Taken before the build: a file saved while it runs makes the next call build again.
now="$WASM_WAY $WASM_BIN $features $(hash Cargo.toml Cargo.lock build.rs .cargo/config.toml package-lock.json dev/build.sh $(find src -type f))"
is_current() { [ -f "$out/index.js" ] && [ "$now" = "$(cat "$out/.stamp" 2>/dev/null)" ]; }

# Every `wrangler dev` of the tests may call this at the same moment: the first builds, the others wait, then skip.
# One lock for all folders, for they share target/; who has nothing to build does not wait for another folder's build.
if ! is_current && command -v flock >/dev/null; then exec 9>.tools/build.lock; flock -n 9 || { say "waiting for another build"; flock 9; }; fi
if is_current; then
  say "$out/ is up to date"
  exit
fi

say "building ${features:+with $features, }with $WASM_WAY's rustc"
begun=$(date +%s)
rm -f "$out/.stamp"
# The *_BIN keep worker-build from downloading its own. RUSTC_BOOTSTRAP lets a stable rustc take -Zbuild-std.
PATH=$PWD/dev/toolchain:$PATH COINSLOT_WASM_BIN=$WASM_BIN RUSTC_BOOTSTRAP=1 \
  WASM_BINDGEN_BIN=$PWD/.tools/bin/wasm-bindgen WASM_OPT_BIN=$PWD/node_modules/.bin/wasm-opt ESBUILD_BIN=$PWD/node_modules/.bin/esbuild \
  .tools/bin/worker-build --release --panic-unwind --out-dir "$out" ${features:+-- --features "$features"} 9>&-
# Function names are a tenth of the size. (`strip = true` in Cargo.toml would take what worker-build reads.)
wasm-opt -all --strip-debug "$out/index_bg.wasm" -o "$out/index_bg.wasm"
echo "$now" >"$out/.stamp"
say "done in $(($(date +%s) - begun))s: $(($(gzip -9c "$out/index_bg.wasm" | wc -c) / 1024)) KiB of wasm gzipped"
