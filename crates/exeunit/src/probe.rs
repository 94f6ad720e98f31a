//! Finding out what a runtime can do on this host: by having it do it.

use std::{fs, io, os::fd::AsFd, path::Path, time::Duration};

use gvpn_model::{
    ActivityId, BatchId, DeployArgs, DeployNetwork, ExeCommand, MemberId, NetworkId, ResultKind,
    RunArgs, StartArgs,
};
use gvpn_runtime::Machine;
use gvpn_vhost::Card;
use gvpn_vnic::{Nic, NicKind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use crate::{ExeUnit, ExeUnitConfig, ExeUnitEvent, NetworkConfig, sweep};

/// How long a runtime may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a machine may take, whose instructions may have to be translated.
const MACHINES_PATIENCE: Duration = Duration::from_secs(300);
/// The address of the payload in a network that is nowhere else: documentation's (RFC 5737).
const ADDRESS: &str = "192.0.2.2";

/// What a runtime can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Whether its payloads can join networks; else why not.
    pub vpn: Result<(), String>,
    /// The virtual machine that its payloads have, if they have one.
    pub machine: Option<Machine>,
}

impl Probed {
    /// What is taken for granted of a runtime that is not tried.
    pub fn believed(runtime: &str) -> Self {
        Self { vpn: Ok(()), machine: Machine::of_runtime(runtime) }
    }
}

/// Runs a payload that does nothing, in a network of its own, by the runtime and with the programs that
/// `config` names; its `workdir` is used and removed.
///
/// # Errors
/// Why the runtime does not work here.
pub async fn probe(config: ExeUnitConfig) -> Result<Probed, String> {
    let place = config.workdir.clone();
    let outcome = match prepare(&place) {
        Ok(()) => probe_in(&place, config.clone()).await,
        Err(e) => Err(format!("cannot use directory {}: {e}", place.display())),
    };
    if let Err(error) = sweep::remove(vec![place.clone()], &config.agent(), &config.helper()).await
    {
        tracing::warn!(place = %place.display(), %error, "what a probe left was not removed");
    }
    outcome
}

fn prepare(place: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o711).create(place)?;
    fs::set_permissions(place, fs::Permissions::from_mode(0o711))?;
    gvpn_runtime::write_probe_image(&place.join("image"))
}

async fn probe_in(place: &Path, mut config: ExeUnitConfig) -> Result<Probed, String> {
    config.images = place.join("images");
    config.image = Some(place.join("image").display().to_string());
    let vpn = attempt(place.join("with"), config.clone(), true).await;
    let machine = Machine::of_runtime(&config.runtime);
    let Err(reason) = vpn else { return Ok(Probed { vpn: Ok(()), machine }) };
    // Without a network, then.
    attempt(place.join("without"), config, false).await?;
    Ok(Probed { vpn: Err(reason), machine })
}

async fn attempt(
    workdir: std::path::PathBuf,
    mut config: ExeUnitConfig,
    joins: bool,
) -> Result<(), String> {
    config.activity = ActivityId::random();
    config.workdir = workdir;
    let machine = Machine::of_runtime(&config.runtime);
    let patience = machine.map_or(PATIENCE, |_| MACHINES_PATIENCE);
    let (unit, events) = ExeUnit::spawn(config).await.map_err(|e| e.to_string())?;
    let networks: Vec<NetworkConfig> = joins.then(network).into_iter().collect();
    unit.exec(BatchId::random(), script(&networks), networks);
    let outcome = tokio::time::timeout(patience, follow(events)).await;
    unit.terminate().await;
    outcome.unwrap_or_else(|_| Err(format!("it did nothing for {} s", patience.as_secs())))
}

/// Waits for the script's end, or its first failure.
async fn follow(mut events: mpsc::Receiver<ExeUnitEvent>) -> Result<(), String> {
    while let Some(event) = events.recv().await {
        match event {
            ExeUnitEvent::Result { result, .. } if result.result == ResultKind::Error => {
                return Err(result.message.unwrap_or_else(|| "it gave no reason".to_owned()));
            }
            ExeUnitEvent::Result { result, .. } if result.is_batch_finished => return Ok(()),
            ExeUnitEvent::AttachNic { nic, reply, .. } => {
                if nic.kind == NicKind::VhostUser {
                    std::thread::spawn(|| serve(nic));
                }
                drop(reply.send(Ok(())));
            }
            ExeUnitEvent::Exited { reason } => {
                return Err(reason.unwrap_or_else(|| "it ended early".to_owned()));
            }
            _ => {}
        }
    }
    Err("its ExeUnit is gone".to_owned())
}

/// A machine waits for whoever serves its cards, and ends without them.
fn serve(nic: Nic) {
    let Ok(card) = Card::new(nic.fd) else { return };
    let mut frame = [0; 2048];
    loop {
        let mut fds = [PollFd::new(card.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        loop {
            match card.receive(&mut frame) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
    }
}

fn script(networks: &[NetworkConfig]) -> Vec<ExeCommand> {
    let net = networks.iter().map(|network| DeployNetwork {
        id: network.network.to_string(),
        ip: "192.0.2.0/24".to_owned(),
        mask: None,
        gateway: None,
        node_ip: ADDRESS.to_owned(),
        nodes: [].into(),
    });
    let program = RunArgs {
        entry_point: gvpn_runtime::PROBE.to_owned(),
        args: vec!["end".to_owned()],
        ..RunArgs::default()
    };
    vec![
        ExeCommand::Deploy(DeployArgs { net: net.collect(), ..DeployArgs::default() }),
        ExeCommand::Start(StartArgs::default()),
        ExeCommand::Run(program),
    ]
}

fn network() -> NetworkConfig {
    NetworkConfig {
        network: NetworkId::random(),
        member: MemberId(1),
        addresses: format!("{ADDRESS}/24").parse().into_iter().collect(),
        gateways: vec![],
        routes: vec![],
        mtu: 1280,
        hosts: vec![],
        dns: vec![],
        search: vec![],
    }
}
