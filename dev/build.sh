#!/bin/sh
# Builds the worker into build/, for make and for wrangler ([build] in wrangler.toml).
#   COINSLOT_PROFILE=release|development  release is the default, and what `wrangler deploy` uploads. `make dev`, the tests
#                                         and `wrangler dev` take development: an edit is built in seconds.
#   COINSLOT_FEATURES=panic-probe COINSLOT_BUILD_DIR=build/probe  another build beside it, for a test.
set -eu
cd "$(dirname "$0")/.."
. dev/host.sh

load_toolchain && has_tool worker-build worker-build $WORKER_BUILD && has_tool wasm-bindgen wasm-bindgen-cli "$(wasm_bindgen_version)" &&
  [ -f node_modules/.coinslot ] || die "run \`make setup\` first"

# Wrangler names its command. One that does not (an older one) gets the release, so that nothing else is ever deployed.
if [ "${WRANGLER_COMMAND:-}" = dev ]; then profile=development; else profile=release; fi
profile=${COINSLOT_PROFILE:-$profile}
case $profile in
  development | release) ;;
  *) die "COINSLOT_PROFILE is release or development, not $profile" ;;
esac
features=${COINSLOT_FEATURES:-}
out=${COINSLOT_BUILD_DIR:-build}
[ -z "$features" ] || [ "$out" != build ] || die "COINSLOT_FEATURES needs a COINSLOT_BUILD_DIR of its own"
mkdir -p "$out"

# Taken before the build: a file saved while it runs makes the next call build again.
# shellcheck disable=SC2046
now="$profile $WASM_WAY $WASM_BIN $features $(hash Cargo.toml Cargo.lock package-lock.json dev/build.sh dev/host.sh dev/toolchain/* $(find src -type f))"
is_current() { [ -f "$out/index.js" ] && [ "$now" = "$(cat "$out/.stamp" 2>/dev/null)" ]; }

# Every `wrangler dev` of the tests may call this at the same moment: the first builds, the others wait, then skip.
# One lock for all folders, for they share target/; who has nothing to build does not wait for another folder's build.
if ! is_current && command -v flock >/dev/null; then exec 9>.tools/build.lock; flock -n 9 || { say "waiting for another build"; flock 9; }; fi
if is_current; then
  say "$out/ is up to date"
  exit
fi

say "building for $profile${features:+, with $features}, with $WASM_WAY's rustc"
begun=$(date +%s)
rm -f "$out/.stamp"
# The *_BIN keep worker-build from downloading its own. RUSTC_BOOTSTRAP lets a stable rustc take -Zbuild-std.
# RUST_BACKTRACE: worker-build would end each compile error with where in worker-build it was told of it.
plain_cargo
unset NO_MINIFY CUSTOM_SHIM COREDUMP RUN_TO_COMPLETION # worker-build's own, each of which makes another worker
PATH=$PWD/dev/toolchain:$PATH COINSLOT_WASM_BIN=$WASM_BIN RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0 RUSTFLAGS='' CARGO_TARGET_DIR=$PWD/target \
  WASM_BINDGEN_BIN=$PWD/dev/toolchain/wasm-bindgen COINSLOT_WASM_BINDGEN=$PWD/.tools/bin/wasm-bindgen ESBUILD_BIN=$PWD/node_modules/.bin/esbuild \
  COINSLOT_PROFILE=$profile \
  .tools/bin/worker-build --profile "$profile" --no-opt --panic-unwind --out-dir "$out" ${features:+-- --features "$features"} 9>&- ||
  { echo failed >"$out/.stamp"; exit 1; } # what dev/stack.mjs looks for
echo "$now" >"$out/.stamp"
size=
[ $profile != release ] || size=": $(($(gzip -9c "$out/index_bg.wasm" | wc -c) / 1024)) KiB of wasm gzipped"
say "done in $(($(date +%s) - begun))s$size"
