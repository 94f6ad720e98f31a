//! LANs.

use crate::{Host, LabError};

/// An Ethernet segment: a bridge in a namespace of its own.
#[derive(Debug, Clone)]
pub struct Lan {
    switch: Host,
}

impl Lan {
    pub(crate) fn new(switch: Host) -> Result<Self, LabError> {
        // No spanning tree, no snooping: a plain wire with many ends.
        switch.ip([
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "stp_state",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        switch.ip(["link", "set", "br0", "up"])?;
        Ok(Self { switch })
    }

    /// The namespace that holds the bridge: filters and captures in the middle of the path go here.
    pub fn switch(&self) -> &Host {
        &self.switch
    }

    /// Makes a cable between the bridge and `host`, where its end is called `name`.
    pub(crate) fn connect(&self, host: &Host, name: &str) -> Result<(), LabError> {
        let port = format!("p{}", host.lab().link_number());
        let pid = host.pid().to_string();
        // The bridge takes what the host sends: its interface has the usual 1500 until it is set.
        let near = ["link", "add", &port, "mtu", "9000", "type", "veth"];
        let far = ["peer", "name", name, "mtu", "1500", "netns", &pid];
        self.switch.ip(near.into_iter().chain(far))?;
        self.switch.ip(["link", "set", &port, "master", "br0", "up"])
    }
}
