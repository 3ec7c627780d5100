#!/bin/sh
# Fuzzes every parser that reads what a stranger sends: tests/fuzz, whose properties are tests/support/parsers.rs.
#   sh dev/fuzz.sh [target...]; SECONDS_EACH=600 for each target. Fails if anything was found.
set -eu
cd "$(dirname "$0")/.."
. dev/host.sh

CARGO_FUZZ=0.13.2
SECONDS_EACH=${SECONDS_EACH:-600}
PATH=$PWD/.tools/bin:$PATH
mkdir -p .tools/log

# A sanitizer and coverage are unstable options of rustc: the pinned nightly has them, RUSTC_BOOTSTRAP gives them to any.
if command -v rustup >/dev/null && rustup run $NIGHTLY cargo -V >/dev/null 2>&1; then
  with() { rustup run $NIGHTLY "$@"; }
else
  export RUSTC_BOOTSTRAP=1
  with() { "$@"; }
fi
rustc=$(with rustc -vV)
triple=$(echo "$rustc" | sed -n 's/^host: //p')
sanitizer=none
for runtime in "$(with rustc --print sysroot)/lib/rustlib/$triple/lib"/librustc-*_rt.asan.a; do
  [ ! -f "$runtime" ] || sanitizer=address
done
say "$(echo "$rustc" | head -n 1), sanitizer: $sanitizer"

if ! has_tool cargo-fuzz cargo-fuzz $CARGO_FUZZ; then
  say "cargo install cargo-fuzz@$CARGO_FUZZ"
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 cargo install --locked --force --root .tools --target-dir .tools/target \
    cargo-fuzz@$CARGO_FUZZ >.tools/log/cargo-fuzz.log 2>&1 || die "that failed, see .tools/log/cargo-fuzz.log"
  rm -rf .tools/target
fi

# The same versions of everything as the worker has.
[ tests/fuzz/Cargo.lock -nt Cargo.lock ] || cp Cargo.lock tests/fuzz/Cargo.lock
fuzz() { command=$1; shift; with cargo fuzz "$command" --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer $sanitizer "$@"; }
say "building, see .tools/log/fuzz-build.log"
fuzz build >.tools/log/fuzz-build.log 2>&1 || { tail -n 30 .tools/log/fuzz-build.log >&2; die "the build failed"; }

# Longest input of a target: beyond what its parser reads, where that is little.
longest() {
  case $1 in
    payment_header) echo 20000 ;;
    sse | json_body) echo 65536 ;;
    template) echo 8192 ;;
    jwt) echo 9000 ;;
    *) echo 4096 ;;
  esac
}

# Freed memory is kept from reuse only for a while, for the limit is on all that the process holds.
export ASAN_OPTIONS="quarantine_size_mb=32${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
targets=${*:-$(sed -n 's/^name = "\(.*\)"$/\1/p' tests/fuzz/Cargo.toml | grep -v '^coinslot-fuzz$')}
failed=
for target in $targets; do
  [ -f "tests/fuzz/fuzz_targets/$target.rs" ] || die "no target $target; there are: $(cd tests/fuzz/fuzz_targets && echo *.rs | sed 's/\.rs//g')"
  log=.tools/log/fuzz-$target.log
  mkdir -p "tests/fuzz/corpus/$target"
  outcome="no crash"
  fuzz run "$target" "tests/fuzz/corpus/$target" -- -max_total_time="$SECONDS_EACH" -max_len="$(longest "$target")" \
    -rss_limit_mb=512 -timeout=10 -print_final_stats=1 -len_control=20 -dict=tests/fuzz/words.dict >"$log" 2>&1 || {
    outcome="FAILED, see $log: $(sed -n 's/.*Test unit written to \(.*\)/\1/p' "$log" | tail -n 1)"
    failed="$failed $target"
  }
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
  echo "$target: ${executions:-0} executions, $outcome"
  [ "${executions:-0}" -gt 0 ] || failed="$failed $target"
done
[ -z "$failed" ] || die "not as it should be:$failed"
