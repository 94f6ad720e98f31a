//! How things stand with one peer's paths.

use std::time::{Duration, Instant};

use crate::{Hop, Source, Tier, candidate::Candidate};

/// How things stand with one peer's paths.
#[derive(Debug, Clone)]
pub struct Report {
    /// The hop in use.
    pub active: Option<Hop>,
    /// Its round-trip time.
    pub rtt: Option<Duration>,
    /// The largest UDP payload on it.
    pub mtu: u16,
    /// All hops known.
    pub hops: Vec<HopReport>,
    /// Why no better hop is in use; empty if the one in use is direct.
    pub reason: String,
}

/// How things stand with one hop.
#[derive(Debug, Clone)]
pub struct HopReport {
    /// The hop.
    pub hop: Hop,
    /// Where it is known from.
    pub source: Source,
    /// Its round-trip time, if it ever answered.
    pub rtt: Option<Duration>,
    /// Time since something authentic came this way.
    pub heard: Option<Duration>,
    /// Probes lost since.
    pub losses: u32,
}

pub(crate) fn make(now: Instant, active: Option<Hop>, candidates: &[Candidate]) -> Report {
    let in_use = candidates.iter().find(|c| Some(c.hop) == active);
    Report {
        active,
        rtt: in_use.and_then(|c| c.rtt),
        mtu: in_use.map_or(crate::QUIC_MTU, |c| c.mtu.mtu()),
        hops: candidates
            .iter()
            .map(|c| HopReport {
                hop: c.hop,
                source: c.source,
                rtt: c.rtt,
                heard: c.heard.map(|at| now.saturating_duration_since(at)),
                losses: c.losses,
            })
            .collect(),
        reason: reason(active, candidates),
    }
}

fn reason(active: Option<Hop>, candidates: &[Candidate]) -> String {
    if candidates.is_empty() {
        return "no address of the peer is known".into();
    }
    match active {
        Some(hop) if !hop.is_relayed() => String::new(),
        None => format!("none of {} addresses answers", candidates.len()),
        Some(hop) => {
            let direct = candidates.iter().filter(|c| !c.hop.is_relayed()).count();
            let lost: u32 =
                candidates.iter().filter(|c| !c.hop.is_relayed()).map(|c| c.losses).sum();
            let why = match (direct, lost) {
                (0, _) => "no direct address of the peer is known".into(),
                (_, 0) => format!("{direct} direct addresses are being tried"),
                _ => format!("none of {direct} direct addresses answers ({lost} probes lost)"),
            };
            match hop.tier() {
                Tier::Stream => format!("{why}; UDP does not reach the relay: over a TLS stream"),
                _ => why,
            }
        }
    }
}
