# Two commands matter: `make demo` runs the main job, `make test` passes the tests.
# Both install what they need (Debian packages, crates).

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test simulate conformance build lint deny docs setup clean
help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | column -t -s "$$(printf '\t')"

demo: setup build ## build, then run the main job end to end on this machine
	$(TARGET)/release/gvpn demo $(DEMO_ARGS)

test: setup      ## run every test
	$(CARGO) test --workspace --no-fail-fast

simulate:        ## run SEEDS random histories of paths in a simulated internet (default 5000)
	GVPN_SIM_SEEDS=0..$(or $(SEEDS),5000) $(CARGO) test --release -p gvpn-path --test simulation random -- --nocapture

conformance: setup ## run Golem's own clients, from their registries, against real daemons
	# As the tests are built, so that little is built twice.
	$(CARGO) build --workspace --all-targets
	conformance/run.py $(CONFORMANCE_ARGS)

build:           ## build the gvpn binary
	$(CARGO) build --release -p gvpn

lint: setup      ## formatting, clippy, documentation, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	$(MAKE) deny

deny: setup      ## licences, bans and sources of every dependency
	scripts/cargo-deny check licenses bans sources

setup:           ## install the Debian packages that building and testing need
	@scripts/setup

clean:           ## remove what was built
	$(CARGO) clean

-include bench.mk ya-runtime.mk
