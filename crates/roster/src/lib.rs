//! The signed list of a network's members: the owner's book that changes it, the replica that follows it. Sans-IO.
