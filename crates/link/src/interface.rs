//! What an interface in a namespace should look like.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The wanted configuration of one interface; the agent adds and removes until it is exactly so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Addresses, each with the length of its on-link prefix.
    pub addresses: Vec<IpNet>,
    /// Routes beyond the on-link ones.
    pub routes: Vec<Route>,
    /// Largest packet.
    pub mtu: u16,
}

/// A route through an interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// Next hop; none when the destination is on the link.
    pub via: Option<IpAddr>,
    /// Preferred source address.
    pub from: Option<IpAddr>,
    /// Lower wins.
    pub metric: Option<u32>,
}

impl Route {
    /// A route straight onto the link.
    pub fn on_link(to: IpNet) -> Self {
        Self { to, via: None, from: None, metric: None }
    }
}
