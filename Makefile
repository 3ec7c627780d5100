# Every target sets up what it needs first; a second `make setup` takes a moment.
.PHONY: setup build release dev pay hire check test soak bench fuzz clean
HOST = @. dev/host.sh;
# For `make dev` and the tests: an edit is built in seconds. `wrangler deploy` and `make release` build for release.
COINSLOT_PROFILE ?= development
export COINSLOT_PROFILE

setup:
	@dev/setup.sh
build: setup
	@dev/build.sh
release: setup    # what `wrangler deploy` uploads, built by it, and tried with one paid run
	$(HOST) exec node --test tests/stack/release.check.mjs
dev: build        # the whole system on this machine: worker, chain, facilitator, model
	$(HOST) exec node dev/stack.mjs
pay:              # pays for one run against `make dev`, which has set everything up
	$(HOST) exec node dev/pay.mjs $(ARGS)
hire:             # hires a template of `make dev` as a HIRE/1.0 seeker does: contract, task, webhook, checksums
	$(HOST) exec node dev/hire.mjs $(ARGS)
# The library alone as well: without the tests' feature nothing is public, and code that nobody uses is an error.
check: setup
	$(HOST) set -ex; cargo fmt --check; cargo clippy --all-targets -- -D warnings; cargo clippy --lib -- -D warnings; cargo test --test floors
test: build
	$(HOST) exec node dev/test.mjs
fuzz:             # every parser of what strangers send, SECONDS_EACH (600) for each
	@dev/fuzz.sh $(TARGETS)
soak: build       # breaks the real stack on purpose, at length: 1,000 runs with a fault each, 50 kills
	$(HOST) set -e; RUNS=$${RUNS:-1000} node --test tests/stack/faults_random.test.mjs; CRASHES=$${CRASHES:-50} node --test tests/stack/crash.test.mjs
# Needs the machine for itself. ARGS: --quick, --full, --only cpu,402, --write (dev/bench/bench.mjs has them all).
bench: setup      # what a run costs, beside hand-written Workers: about 10 minutes, after the release build
	@COINSLOT_PROFILE=release COINSLOT_BUILD_DIR=build/bench dev/build.sh
	$(HOST) exec node dev/bench/bench.mjs $(ARGS)
clean:            # leaves what set-up has fetched; `git clean -xdf` takes that too
	rm -rf build target .wrangler/tmp
