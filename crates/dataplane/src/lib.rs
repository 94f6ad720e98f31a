//! Run-to-completion threads that move super-packets between vNICs and sealed UDP datagrams.
