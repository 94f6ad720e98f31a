//! Data-lane cryptography: sealing and opening payload packets with keys from the TLS exporter, replay windows, key lifetimes. Sans-IO.
