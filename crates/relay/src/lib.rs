//! The relay: registry of node records, observed addresses, and forwarding of sealed datagrams.
