//! The virtual switch of a network: where a packet goes, and whether it may. Sans-IO.
