//! Network interfaces as wanted, and the route netlink that makes them so: in a namespace of the host
//! (`gvpn-vnic`) and in a guest (`gvpn-guest`). Others (`gvpn-net`) only ask.

mod interface;
mod netlink;
mod questions;

pub use interface::{Interface, Route};
pub use netlink::{Bounds, Netlink, Refused, quiet_ipv6};
pub use questions::Questions;
