//! `gvpn doctor`: whether this machine can do what a node needs, and what to do where it cannot.

mod host;
mod network;

use gvpn_identity::Identity;
use gvpn_net::NetConfig;
use serde::Serialize;

use crate::{
    config::Config,
    context::Common,
    daemon::{http_proxy, resolve_all},
    failure::{Failure, Outcome},
    show,
};

/// Options of `gvpn doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Relay to try, beside those of the settings; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    relay: Vec<String>,
    /// Do not ask the router for a port.
    #[arg(long)]
    no_port_mapping: bool,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// Something will not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// All checks.
#[derive(Debug, Serialize)]
struct Findings {
    /// The worst of the verdicts.
    verdict: Verdict,
    checks: Vec<Check>,
}

impl Doctor {
    /// Looks at everything. Fails, after all is told, if anything that a node needs is missing.
    pub(crate) async fn run(self, common: &Common) -> Outcome {
        let config = common.home()?.config()?;
        let mut checks = host::checks(&config).await;
        checks.extend(self.network(&config).await);
        let worst = |verdict| checks.iter().any(|check| check.verdict == verdict);
        let verdict = match (worst(Verdict::Fail), worst(Verdict::Warn)) {
            (true, _) => Verdict::Fail,
            (_, true) => Verdict::Warn,
            _ => Verdict::Ok,
        };
        show::value(common.json, &Findings { verdict, checks }, text)?;
        if verdict == Verdict::Fail { Err(Failure::silent(1)) } else { Ok(()) }
    }

    async fn network(&self, config: &Config) -> Vec<Check> {
        let mut names = config.net.relays.clone().unwrap_or_default();
        names.extend(self.relay.iter().cloned());
        let mut relays = Vec::new();
        let mut checks = Vec::new();
        for name in names {
            match resolve_all(std::slice::from_ref(&name)) {
                Ok(found) => relays.extend(found.into_iter().map(|addr| (name.clone(), addr))),
                Err(failure) => checks.push(Check::fail(
                    "relay",
                    failure.to_string(),
                    "correct the name in config.toml, or look at this machine's DNS",
                )),
            }
        }
        let mut net = NetConfig::new(Identity::generate());
        net.port_mapping = !self.no_port_mapping && config.net.port_mapping.unwrap_or(true);
        if let Some(port) = config.net.stream_port {
            net.stream_port = (port != 0).then_some(port);
        }
        match http_proxy(config.net.proxy.as_deref()) {
            Ok(proxy) => net.proxy = proxy,
            Err(failure) => checks.push(Check::fail(
                "proxy",
                failure.to_string(),
                "set `proxy` in [net] of config.toml, or remove it",
            )),
        }
        checks.extend(network::checks(net, relays).await);
        checks
    }
}

fn text(findings: &Findings) -> String {
    let mut text = String::new();
    for check in &findings.checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        text += &format!("{verdict}  {}: {}\n", check.name, check.found);
        if let Some(advice) = &check.advice {
            text += &format!("      -> {advice}\n");
        }
    }
    text
}
