//! Golem Net: the QUIC lane between nodes, peers, lanes and paths on top of the data plane's sockets.
