//! Captures: a pcapng stream of a network's packets, and the filter that chooses them.

mod filter;
mod pcapng;

pub use filter::{Filter, FilterError};
pub use pcapng::{Direction, Writer};
