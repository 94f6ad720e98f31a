//! Real hosts in network namespaces for tests and benchmarks.
