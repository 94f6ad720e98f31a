//! The test bed: two hosts joined by one veth.

use gvpn_lab::{Host, Lab};

use crate::system::BenchError;

/// Two hosts, `10.99.0.1` and `10.99.0.2`, joined by a veth with MTU 1500.
pub(crate) struct Bed {
    /// The client's host.
    pub(crate) a: Host,
    /// The server's host.
    pub(crate) b: Host,
    _lab: Lab,
}

/// Address of host `a`.
pub(crate) const A: &str = "10.99.0.1";
/// Address of host `b`.
pub(crate) const B: &str = "10.99.0.2";

impl Bed {
    /// Makes the hosts and the link. With `segment_in_software` the link's UDP segmentation
    /// offload is off, which is as near to a plain network card as a veth comes.
    pub(crate) fn new(segment_in_software: bool) -> Result<Self, BenchError> {
        let lab = Lab::new()?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let pid = b.pid().to_string();
        a.ip([
            "link", "add", "eth0", "mtu", "1500", "type", "veth", "peer", "name", "eth0", "netns",
            &pid,
        ])?;
        for (host, address) in [(&a, A), (&b, B)] {
            host.ip(["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
            host.ip(["link", "set", "eth0", "mtu", "1500", "up"])?;
            host.ip(["link", "set", "lo", "up"])?;
            if segment_in_software {
                host.run("ethtool", ["-K", "eth0", "tx-udp-segmentation", "off"])?;
            }
        }
        Ok(Self { a, b, _lab: lab })
    }
}
