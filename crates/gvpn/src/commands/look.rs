//! `gvpn trace` and `gvpn capture`: what a network does with packets.

use std::{
    io::{self, IsTerminal, Write},
    net::IpAddr,
    path::PathBuf,
};

use futures::StreamExt;
use gvpn_model::NodeId;
use gvpn_sdk::{Network, Protocol, Question};
use serde_json::Value;

use super::rule::protocol;
use crate::{
    context::{Context, node_id},
    failure::{Failure, Outcome},
    show,
};

/// Options of `gvpn trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Trace {
    /// Sending member: number, name or address.
    source: String,
    /// Receiving member, or any address.
    destination: String,
    /// Destination port.
    port: Option<u16>,
    /// Protocol: tcp, udp, icmp or a number [default: tcp with a port, else icmp].
    #[arg(long, value_parser = protocol)]
    protocol: Option<Protocol>,
    /// Network: id, beginning of an id, or name [default: the one that has the source].
    #[arg(long)]
    net: Option<String>,
}

/// Options of `gvpn capture`.
#[derive(Debug, clap::Args)]
pub(crate) struct Capture {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// Which packets, such as `tcp port 80 and host 10.0.0.2` [default: all].
    filter: Vec<String>,
    /// File to write pcapng to [default: standard output, for a pipe into Wireshark or tshark].
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Bytes of each packet to keep; 0 for all.
    #[arg(long, default_value_t = 0)]
    snap: u32,
    /// Capture at this node only, both ways [default: at every member's node, where packets start].
    #[arg(long, value_parser = node_id)]
    node: Option<NodeId>,
}

impl Trace {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let (network, source) = self.find(context).await?;
        let destination = address(&network, &self.destination, Some(source)).await?;
        let implied = if self.port.is_some() { Protocol::Tcp } else { Protocol::Icmp };
        let protocol = self.protocol.unwrap_or(implied);
        let port = self.port.unwrap_or(0);
        let question = Question { source, destination, protocol, port };
        let trace = network.trace(&question).await?;
        show::value(context.json, &trace, |trace| {
            let mut text = format!("{source} -> {destination} (epoch {})\n", trace.epoch);
            for step in trace.trace["steps"].as_array().into_iter().flatten() {
                text.push_str(&format!("  {}\n", step_text(step)));
            }
            if let Some(path) = &trace.path {
                text.push_str(&format!("  path: {path}\n"));
            }
            text + &format!("{}\n", outcome_text(&trace.trace["outcome"]))
        })
    }

    /// The network, and the sender's address in it.
    async fn find(&self, context: &Context) -> Outcome<(Network, IpAddr)> {
        if let Some(network) = &self.net {
            let network = context.network(network).await?;
            let source = address(&network, &self.source, None).await?;
            return Ok((network, source));
        }
        let mut found = Vec::new();
        for info in context.client.networks().await? {
            let network = context.client.network(info.id);
            if let Ok(member) = network.member(&self.source).await {
                let given = self.source.parse().ok();
                if let Some(ip) = given.or(member.ips.first().copied()) {
                    found.push((network, ip));
                }
            }
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(Failure::new(format!("no network has a member `{}`", self.source))),
            n => Err(Failure::new(format!("{n} networks have a member `{}`", self.source))
                .hint("say which with --net")),
        }
    }
}

impl Capture {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        if self.write.is_none() && io::stdout().is_terminal() {
            return Err(Failure::new("captured packets are no text for a terminal").hint(
                "write them with -w FILE, or pipe them: `gvpn capture NETWORK | tshark -r -`",
            ));
        }
        let network = context.network(&self.network).await?;
        let filter = self.filter.join(" ");
        let mut packets = network.capture(&filter, self.snap, self.node).await?;
        let mut to: Box<dyn Write> = match &self.write {
            Some(path) => {
                let cannot = Failure::io(format!("cannot write {}", path.display()));
                Box::new(std::fs::File::create(path).map_err(cannot)?)
            }
            None => Box::new(io::stdout().lock()),
        };
        loop {
            let part = tokio::select! {
                part = packets.next() => part,
                _ = tokio::signal::ctrl_c() => None,
            };
            let Some(part) = part else { return Ok(()) };
            match to.write_all(&part?).and_then(|()| to.flush()) {
                Ok(()) => {}
                // The reader has seen enough.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(e) => return Err(Failure::io("cannot write captured packets")(e)),
            }
        }
    }
}

/// An address, or that of the member meant: of the same family as `like`, if there is one.
async fn address(network: &Network, text: &str, like: Option<IpAddr>) -> Outcome<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    let member = network.member(text).await?;
    let same = |ip: &&IpAddr| like.is_none_or(|like| like.is_ipv4() == ip.is_ipv4());
    let found = member.ips.iter().find(same).or(member.ips.first());
    found.copied().ok_or_else(|| Failure::new(format!("member `{text}` has no address")))
}

fn step_text(step: &Value) -> String {
    let Some((kind, facts)) = step.as_object().and_then(|o| o.iter().next()) else {
        return step.as_str().map_or_else(|| step.to_string(), str::to_owned);
    };
    let fact = |name: &str| match &facts[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let does = |action: &Value| if action == "deny" { "denies it" } else { "allows it" };
    let count = |name: &str| facts[name].as_array().map_or(0, Vec::len);
    match kind.as_str() {
        "source" => format!("from member {} on {}", fact("member"), fact("node")),
        "destination" => format!("to member {} on {}", fact("member"), fact("node")),
        "route" => format!("routed through member {} on {}", fact("member"), fact("node")),
        "rule" => {
            let reply = if facts["reply"] == true { ", as a reply" } else { "" };
            format!("rule {} {}{reply}", fact("id"), does(&facts["action"]))
        }
        "default" => format!("no rule matches; the default {}", does(&facts["action"])),
        "group" => {
            format!("to {} members there and {} other nodes", count("members"), count("nodes"))
        }
        "limited" => format!(
            "limited to {} bit/s and {} packets/s (0: no limit)",
            fact("bitsPerSecond"),
            fact("packetsPerSecond")
        ),
        other => format!("{other}: {facts}"),
    }
}

fn outcome_text(outcome: &Value) -> String {
    match outcome.as_object().and_then(|o| o.iter().next()) {
        Some((kind, what)) if kind == "delivered" => format!("delivered to member {what}"),
        Some((kind, what)) => format!("{kind}: {}", what.as_str().unwrap_or_default()),
        None => outcome.as_str().unwrap_or_default().to_owned(),
    }
}
