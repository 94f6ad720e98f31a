//! The virtual switch of a network: where a packet goes, and whether it may. Sans-IO.

/// The forwarding table of one network as one node sees it.
#[derive(Debug)]
pub struct Table;
