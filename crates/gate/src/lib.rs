//! The gate: the requestor's way into a network, over WebSockets and sockets opened inside a namespace.
