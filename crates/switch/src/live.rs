//! What outlives a roster's epoch.

/// State of a network on this node that the tables of successive epochs share.
#[derive(Debug, Default)]
pub struct Live {}
