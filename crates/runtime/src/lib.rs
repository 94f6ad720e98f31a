//! The runtime SDK: the `Runtime` trait with the VPN built in, and the runtimes that ship with it.
