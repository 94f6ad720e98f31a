.PHONY: bench bench-quick bench-relay bench-instructions

BENCH = $(CARGO) run --release -p gvpn-bench -- --gvpn $(TARGET)/release/gvpn --out $(TARGET)/bench --peers $(TARGET)/bench/peers

bench: setup build ## measure this product, its peers and the limits side by side
	$(BENCH) $(BENCH_ARGS)

bench-quick: setup build ## the same in under three minutes (peers built before)
	$(BENCH) --quick $(BENCH_ARGS)

bench-relay: setup build ## the relay beside direct paths and coturn; writes its figures into docs/relay.md
	$(BENCH) --relay $(BENCH_ARGS)

bench-instructions: setup ## compare the instructions of the hot path with the committed baseline
	$(CARGO) bench --profile instructions -p gvpn-dataplane --bench instructions -- $(BENCH_ARGS)
