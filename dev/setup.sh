#!/bin/sh
# Everything the other targets need, on a bare machine too. Each step is skipped when its stamp says that
# nothing it depends on has changed, so every target can call this first.
#   COINSLOT_WASM_TOOLCHAIN=rustup|debian forces one way to get the wasm compiler.
set -eu
cd "$(dirname "$0")/.."
. dev/host.sh
plain_cargo

mkdir -p .tools/log
# Two set-ups at once (say, two tests) would install over each other.
if command -v flock >/dev/null; then
  exec 9>.tools/setup.lock
  flock -n 9 || { say "waiting for another set-up"; flock 9; }
fi

# run NAME COMMAND...: the output goes to a log; a line of it is shown every 10 s, its end on failure.
# Fails after $limit seconds, where that is set.
limit=
run() {
  log=.tools/log/$1.log; shift
  "$@" >"$log" 2>&1 9>&- & pid=$!
  trap 'kill "$pid" 2>/dev/null; wait "$pid"; exit 130' INT TERM
  begun=$(date +%s); next=10
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.5; seconds=$(($(date +%s) - begun))
    [ -z "$limit" ] || [ $seconds -lt "$limit" ] || { echo "not done after ${limit}s" >>"$log"; kill "$pid" 2>/dev/null; break; }
    [ $seconds -lt $next ] || { next=$((next + 10)); say "  ${seconds}s: $(tail -n 1 "$log" | tr '\r' '\n' | tail -n 1 | cut -c 1-90)"; }
  done
  trap - INT TERM
  wait "$pid" && { say "  done in $(($(date +%s) - begun))s"; return; }
  tail -n "${TAIL:-30}" "$log" >&2; say "  failed, see $log" >&2; return 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "this needs root and there is no sudo: $*"; fi
}
# debian NAME PACKAGE...: installs those that are missing.
debian() {
  name=$1; shift
  ! dpkg -s "$@" >/dev/null 2>&1 || return 0
  command -v apt-get >/dev/null || die "needs what Debian calls: $*"
  say "apt-get install $*"
  run "apt-update" as_root apt-get update
  run "apt-$name" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# 1. node, npm, cargo --------------------------------------------------------------------------------
for c in npm cargo cc; do
  PATH=$SYSTEM_PATH command -v $c >/dev/null || die "$c is missing; needed: Node with npm, Rust's cargo, a C linker (cc)"
done
cargo -V >/dev/null || die "cargo does not run (a rustup without a default toolchain? try: rustup default stable)"

if [ "$(hash package.json package-lock.json .npmrc)" != "$(cat node_modules/.coinslot 2>/dev/null)" ]; then
  say "npm ci"
  # --include: NODE_ENV=production and npm's `omit` setting would leave out what we build with.
  run npm env PATH="$SYSTEM_PATH" npm ci --include=dev --include=optional --ignore-scripts --no-audit --no-fund || die "npm ci failed"
  hash package.json package-lock.json .npmrc >node_modules/.coinslot
fi
check_node

# 2. the wasm compiler -------------------------------------------------------------------------------
# A panic must end one request and not the worker, so std is rebuilt with panic=unwind: that asks for
# unstable features and std's source. A pinned nightly has them. Where rustup cannot fetch it, Debian's
# rustc does the same with RUSTC_BOOTSTRAP=1.
from_rustup() {
  command -v rustup >/dev/null || return 1
  if ! has_nightly; then
    say "rustup toolchain install $NIGHTLY"
    # On a line so slow the other way is quicker; and a registry out of reach may not answer at all.
    limit=300
    run rustup rustup toolchain install $NIGHTLY --profile minimal -c rust-src --no-self-update || return 1
    limit=
    has_nightly || { say "  rustup has installed it without std's source"; return 1; }
  fi
  WASM_WAY=$NIGHTLY
  WASM_BIN=$sysroot/bin
}
has_nightly() {
  sysroot=$(RUSTUP_AUTO_INSTALL=0 rustup run $NIGHTLY rustc --print sysroot 2>/dev/null) && [ -d "$sysroot/lib/rustlib/src/rust/library/std" ]
}
from_debian() {
  limit=
  # shellcheck disable=SC2086
  debian rust $DEBIAN_RUST
  WASM_WAY=debian WASM_BIN=/usr/bin
}
if ! load_toolchain; then
  case ${COINSLOT_WASM_TOOLCHAIN:-any} in
    any) from_rustup || from_debian ;;
    rustup) from_rustup || die "rustup could not provide $NIGHTLY" ;;
    debian) from_debian ;;
    *) die "COINSLOT_WASM_TOOLCHAIN is rustup or debian, not $COINSLOT_WASM_TOOLCHAIN" ;;
  esac
  printf "WASM_WAY=%s\nWASM_BIN='%s'\n" "$WASM_WAY" "$WASM_BIN" >.tools/wasm-toolchain
  say "the wasm compiler is $WASM_WAY's $("$WASM_BIN/rustc" -V)"
fi

# 3. worker-build and wasm-bindgen -------------------------------------------------------------------
# They run for seconds and compile for minutes: little optimisation is the better deal. Other settings
# than cargo install's own, and one target folder for both, so what they share is compiled once.
install() {
  say "cargo install $1"
  run "$1" env CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install --force --root .tools --target-dir .tools/target --bin "$@"
}
if ! has_tool worker-build worker-build $WORKER_BUILD; then
  # Its downloader, which goes unused here, links OpenSSL on Linux.
  [ "$(uname -s)" != Linux ] || pkg-config --exists openssl 2>/dev/null || debian openssl libssl-dev pkg-config
  install worker-build --locked worker-build@$WORKER_BUILD
fi
v=$(wasm_bindgen_version)
[ -n "$v" ] || die "no wasm-bindgen in Cargo.lock"
if ! has_tool wasm-bindgen wasm-bindgen-cli "$v"; then
  # It runs at every edit. With what it does its work with optimised, that takes half of the time.
  o=
  for crate in walrus wasmparser wasm-encoder id-arena gimli wasm-bindgen-cli-support; do o="$o --config profile.release.package.$crate.opt-level=1"; done
  # Not --locked: its own lock names versions that not every registry has.
  # shellcheck disable=SC2086
  install wasm-bindgen $o "wasm-bindgen-cli@$v"
fi
rm -rf .tools/target

# 4. secrets and the database of `wrangler dev` ------------------------------------------------------
if [ ! -f .dev.vars ]; then
  say "new secrets in .dev.vars"
  (umask 077; printf 'VAULT_KEYS="k1:%s"\nJWT_SECRET="%s"\n' \
    "$(head -c 32 /dev/urandom | base64)" "$(head -c 36 /dev/urandom | base64 | tr +/ -_)" >.dev.vars)
fi
if [ "$(hash migrations/*.sql)" != "$(cat .wrangler/state/migrations.hash 2>/dev/null)" ]; then
  say "migrations/ into the local D1 database"
  run d1 wrangler d1 migrations apply coinslot --local
  hash migrations/*.sql >.wrangler/state/migrations.hash
fi
