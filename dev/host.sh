# Shared by dev/*.sh and the Makefile: sourced from the repository's root, POSIX sh (wrangler calls `sh`).

# The nightly that builds the worker where rustup can fetch it, and the packages that do where it cannot.
NIGHTLY=nightly-2026-10-01
DEBIAN_RUST="rustc-web cargo-web rust-web-src lld-22 rust-web-llvm"
WORKER_BUILD=0.8.7

SYSTEM_PATH=${SYSTEM_PATH:-$PATH}            # without node_modules, for `npm ci`, which empties it
PATH=$PWD/node_modules/.bin:$SYSTEM_PATH     # wrangler, wasm-opt, esbuild, and Node where npm has it for this system
# A rustup shim with no default toolchain (say, under an empty HOME) fails: a system-wide cargo may do.
if ! cargo -V >/dev/null 2>&1 && [ -x /usr/bin/cargo ]; then
  SYSTEM_PATH=/usr/bin:$SYSTEM_PATH
  PATH=$PWD/node_modules/.bin:$SYSTEM_PATH
fi
export SYSTEM_PATH PATH WRANGLER_SEND_METRICS=false

say() { echo "${0##*/}: $*"; }
die() { say "$*" >&2; exit 1; }

# check_node: npm has Node 24 for some systems (package.json, optionalDependencies). Elsewhere the system's own must do.
check_node() {
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 13) ? 0 : 1)' 2>/dev/null ||
    die "Node 22.13 or newer is needed, and npm has none for this system ($(uname -sm)); found: $(node -v 2>/dev/null || echo none)"
}

# sha256 FILE...: with none, of the standard input. macOS has the second.
if command -v sha256sum >/dev/null; then sha256() { sha256sum "$@"; }; else sha256() { shasum -a 256 "$@"; }; fi

# hash FILE...: one hash of the names and contents of the files that are there. No name of ours has a blank in it.
hash() {
  # shellcheck disable=SC2046
  set -- $(for f in "$@"; do [ ! -f "$f" ] || printf '%s\n' "$f"; done | LC_ALL=C sort)
  { [ $# = 0 ] || sha256 "$@"; } | sha256 | cut -c1-64
}

# wasm_bindgen_version: the library's, from Cargo.lock. The command must be of exactly that version.
wasm_bindgen_version() {
  awk '/^name = / { n = $3 } /^version = / && n == "\"wasm-bindgen\"" { gsub(/"/, "", $3); print $3; exit }' Cargo.lock
}

# has_tool COMMAND CRATE VERSION: is it in .tools? (Cargo's own record is the stamp.)
has_tool() { [ -x ".tools/bin/$1" ] && grep -q "^\"$2 $3 " .tools/.crates.toml 2>/dev/null; }

# load_toolchain: reads setup's choice, WASM_WAY and WASM_BIN (a folder with cargo and rustc in it).
load_toolchain() {
  [ -f .tools/wasm-toolchain ] || return 1
  . ./.tools/wasm-toolchain
  [ -x "$WASM_BIN/cargo" ] && [ -x "$WASM_BIN/rustc" ] || return 1
  # Another pin, or another way asked for, makes the choice stale.
  case $WASM_WAY in "$NIGHTLY" | debian) ;; *) return 1 ;; esac
  case ${COINSLOT_WASM_TOOLCHAIN:-any} in
    any) ;;
    rustup) [ "$WASM_WAY" = "$NIGHTLY" ] ;;
    *) [ "$WASM_WAY" = "$COINSLOT_WASM_TOOLCHAIN" ] ;;
  esac
}
