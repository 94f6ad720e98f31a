//! The payload's networks and names.

use std::{collections::BTreeMap, net::IpAddr, rc::Rc};

use gvpn_model::{ActivityId, ActivityState, NetworkId};
use gvpn_runtime::{Names, NetworkConfig};
use tokio::sync::mpsc;

use super::Unit;
use crate::wire::{Report, Request};

/// A change of a network, by its owner.
pub(super) enum Change {
    Set(NetworkConfig),
    Remove(NetworkId),
}

pub(super) struct Networks {
    joined: BTreeMap<NetworkId, NetworkConfig>,
    pub(super) hostname: String,
    /// Lines of `/etc/hosts` that came with `deploy`.
    pub(super) hosts: Vec<(String, IpAddr)>,
}

impl Networks {
    pub(super) fn new(activity: &ActivityId) -> Self {
        let hostname = activity.to_string().chars().take(12).collect();
        Self { joined: BTreeMap::new(), hostname, hosts: vec![] }
    }

    /// Makes a network of the payload exactly so.
    pub(super) async fn set(&mut self, unit: &Unit, network: NetworkConfig) -> Result<(), String> {
        let present = self.joined.get(&network.network);
        match present {
            Some(present) if *present == network => return Ok(()),
            // A member's vNIC is bound to it in the data path.
            Some(present) if present.member != network.member => {
                self.leave(unit, network.network).await;
                self.join(unit, &network).await?;
            }
            Some(_) => {
                let updated = unit.runtime.update(&unit.payload, &network).await;
                updated.map_err(|e| e.to_string())?;
            }
            None => self.join(unit, &network).await?,
        }
        self.joined.insert(network.network, network);
        Ok(())
    }

    async fn join(&self, unit: &Unit, network: &NetworkConfig) -> Result<(), String> {
        let (id, member) = (network.network, network.member);
        let joined = unit.runtime.join(&unit.payload, network).await;
        let nic = joined.map_err(|e| format!("network {id}: {e}"))?;
        let attach = Request::Attach { network: id, member, kind: nic.kind };
        let attached =
            unit.daemon.ask(attach, std::iter::once(nic.fd).chain(nic.queues).collect()).await;
        if let Err(reason) = attached {
            let _ = unit.runtime.leave(&unit.payload, id).await;
            return Err(format!("network {id}: {reason}"));
        }
        if let Err(e) = unit.runtime.joined(&unit.payload, network).await {
            unit.daemon.report(Report::Detach { network: id, member }).await;
            let _ = unit.runtime.leave(&unit.payload, id).await;
            return Err(format!("network {id}: {e}"));
        }
        Ok(())
    }

    /// Takes the payload out of a network.
    pub(super) async fn leave(&mut self, unit: &Unit, network: NetworkId) {
        let Some(left) = self.joined.remove(&network) else { return };
        unit.daemon.report(Report::Detach { network, member: left.member }).await;
        if let Err(e) = unit.runtime.leave(&unit.payload, network).await {
            eprintln!("exeunit: network {network}: {e}");
        }
    }

    pub(super) async fn leave_all(&mut self, unit: &Unit) {
        for network in self.joined.keys().copied().collect::<Vec<_>>() {
            self.leave(unit, network).await;
        }
    }

    /// Tells the payload all names.
    pub(super) async fn rename(&self, unit: &Unit) -> Result<(), String> {
        let names = Names::new(&self.hostname, &self.hosts, self.joined.values());
        unit.runtime.rename(&unit.payload, &names).await.map_err(|e| e.to_string())
    }
}

impl Unit {
    /// Follows the owners' changes while the payload lives.
    pub(super) async fn follow(self: Rc<Self>, mut changes: mpsc::UnboundedReceiver<Change>) {
        while let Some(change) = changes.recv().await {
            let mut networks = self.networks.lock().await;
            if !matches!(self.state.get().0, ActivityState::Deployed | ActivityState::Ready) {
                continue;
            }
            let changed = match change {
                Change::Set(network) => networks.set(&self, network).await,
                Change::Remove(network) => {
                    networks.leave(&self, network).await;
                    Ok(())
                }
            };
            if let Err(e) = changed.and(networks.rename(&self).await) {
                eprintln!("exeunit: a change of network was not followed: {e}");
            }
        }
    }
}
