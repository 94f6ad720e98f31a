//! The test bed: two hosts joined by one veth, or by a long line.

use std::time::Duration;

use gvpn_lab::{Host, Lab, Line, Weather};

use crate::system::{BenchError, Layout};

/// Two hosts, `10.99.0.1` and `10.99.0.2`, joined by a link with MTU 1500.
pub(crate) struct Bed {
    /// The client's host.
    pub(crate) a: Host,
    /// The server's host.
    pub(crate) b: Host,
    _line: Option<Line>,
    lab: Lab,
}

/// Address of host `a`.
pub(crate) const A: &str = "10.99.0.1";
/// Address of host `b`.
pub(crate) const B: &str = "10.99.0.2";

/// 20 ms there and back; of a hundred frames one is lost.
const LONG: Weather = Weather {
    delay: Duration::from_millis(10),
    jitter: Duration::ZERO,
    loss: 0.01,
    burst: 0.0,
    reorder: 0.0,
    duplicate: 0.0,
    corrupt: 0.0,
    mtu: None,
};

impl Bed {
    /// Makes the hosts and the link that a layout wants.
    pub(crate) fn new(layout: Layout) -> Result<Self, BenchError> {
        match layout {
            Layout::LongGate => Self::with_line(LONG),
            _ => Self::with_veth(layout == Layout::PlainLink),
        }
    }

    /// One more place for an end of a tunnel, with no link of its own.
    pub(crate) fn place(&self) -> Result<Host, BenchError> {
        Ok(self.lab.host("place")?)
    }

    fn with_line(weather: Weather) -> Result<Self, BenchError> {
        let lab = Lab::new()?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let lans = [lab.lan()?, lab.lan()?];
        a.join(&lans[0], &[&format!("{A}/24")])?;
        b.join(&lans[1], &[&format!("{B}/24")])?;
        let line = lab.line(&lans[0], &lans[1], weather, 1)?;
        Ok(Self { a, b, _line: Some(line), lab })
    }

    /// With `segment_in_software` the link's UDP segmentation offload is off, which is as near to a
    /// plain network card as a veth comes.
    fn with_veth(segment_in_software: bool) -> Result<Self, BenchError> {
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
        Ok(Self { a, b, _line: None, lab })
    }
}
