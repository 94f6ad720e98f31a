//! Which runtimes work on this host, found out by trying them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use gvpn_exeunit::{ExeUnitConfig, Probed};
use gvpn_model::ActivityId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::core::Core;

/// How long it is believed that something does not work.
const DOUBT: Duration = Duration::from_secs(60);

/// What has been found out, by the runtime's name.
pub(crate) struct Runtimes {
    all: Mutex<BTreeMap<String, Found>>,
    /// Counts findings, for whoever waits for one.
    ticks: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
struct Found {
    /// None as long as nothing is known.
    probed: Option<Result<Probed, String>>,
    trying: bool,
    since: Instant,
}

impl Runtimes {
    pub(crate) fn new() -> Self {
        Self { all: Mutex::default(), ticks: watch::Sender::new(0) }
    }

    /// Signals every new finding.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    /// Why a runtime is known not to work here.
    pub(crate) fn fault(&self, name: &str) -> Option<String> {
        self.all.lock().get(name)?.probed.clone()?.err()
    }

    /// What a runtime can do; `None` while it is not known to work. What is not known, and what did not
    /// work a while ago, is tried.
    pub(crate) fn look(&self, core: &Arc<Core>, name: &str) -> Option<Probed> {
        if !core.config.try_runtimes {
            return Some(Probed::believed(name));
        }
        let mut all = self.all.lock();
        let found = all.entry(name.to_owned()).or_insert_with(|| Found {
            probed: None,
            trying: false,
            since: Instant::now(),
        });
        let works = matches!(&found.probed, Some(Ok(Probed { vpn: Ok(()), .. })));
        let due = found.probed.is_none() || found.since.elapsed() >= DOUBT;
        if !works && due && !found.trying {
            found.trying = true;
            let (core, name) = (core.clone(), name.to_owned());
            core.clone().spawn(async move { try_one(&core, name).await });
        }
        found.probed.clone()?.ok()
    }

    fn note(&self, name: &str, probed: Result<Probed, String>) {
        let found = Found { probed: Some(probed), trying: false, since: Instant::now() };
        self.all.lock().insert(name.to_owned(), found);
        self.ticks.send_modify(|ticks| *ticks += 1);
    }
}

async fn try_one(core: &Arc<Core>, name: String) {
    let activity = ActivityId::random();
    let workdir = core.probes_dir().join(activity.to_string());
    let mut config = ExeUnitConfig::new(activity, workdir, core.images_dir());
    config.exe = core.config.exe.clone();
    config.tun_device = core.config.tun_device.clone();
    config.runtime.clone_from(&name);
    let probed = if name.starts_with('/') {
        // What a program of somebody else's takes for an image is not known here.
        is_program(&name)
    } else {
        gvpn_exeunit::probe(config).await
    };
    match &probed {
        Ok(Probed { vpn: Ok(()), .. }) => tracing::info!(runtime = %name, "the runtime works"),
        Ok(Probed { vpn: Err(reason), .. }) => {
            tracing::warn!(runtime = %name, %reason, "the runtime works, but without networks");
        }
        Err(reason) => tracing::warn!(runtime = %name, %reason, "the runtime does not work here"),
    }
    core.runtimes.note(&name, probed);
}

fn is_program(path: &str) -> Result<Probed, String> {
    use nix::unistd::{AccessFlags, access};
    match access(path, AccessFlags::X_OK) {
        Ok(()) => Ok(Probed::believed(path)),
        Err(e) => Err(format!("it cannot be run: {e}")),
    }
}
