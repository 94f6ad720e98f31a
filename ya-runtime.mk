.PHONY: test-ya-runtime
test-ya-runtime: ## run a runtime built on Golem's published SDK under the ExeUnit
	$(CARGO) build --manifest-path conformance/ya-runtime/Cargo.toml --target-dir $(TARGET)/ya-runtime
	GVPN_YA_RUNTIME=$(abspath $(TARGET))/ya-runtime/debug/ya-runtime-program \
	  $(CARGO) test -p gvpn-exeunit --test ya_runtime -- --ignored
