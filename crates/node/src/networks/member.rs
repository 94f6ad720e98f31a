//! The member's side: follows the rosters that owners send.

use std::{collections::HashMap, sync::Arc, time::Duration};

use gvpn_model::{NetworkId, NodeId};
use gvpn_roster::{Applied, Delta, Replica, ReplicaError, Snapshot};
use gvpn_store::MembershipRow;
use parking_lot::Mutex;

use crate::{
    NodeError,
    core::Core,
    networks::local::Local,
    proto::{self, RosterReply, RosterRequest, UpdateKind},
};

/// How many networks of one owner a node follows.
const PER_OWNER: usize = 1024;
/// How many networks of others a node follows in all.
const IN_ALL: usize = 8192;
/// How often a restarted member asks an owner for what it missed; after that it waits to be told.
const PULLS: u32 = 6;

/// Networks of other owners that this node is in.
pub(crate) struct Memberships {
    core: Arc<Core>,
    local: Arc<Local>,
    replicas: Mutex<HashMap<NetworkId, Replica>>,
}

impl Memberships {
    /// Takes up what was kept; rosters are in force when this returns.
    pub(crate) fn restore(core: Arc<Core>, local: Arc<Local>) -> Result<Self, NodeError> {
        let mut replicas = HashMap::new();
        for row in core.store.memberships()? {
            match restored(&row) {
                Ok(replica) => {
                    if let Some(roster) = replica.roster() {
                        local.set(Arc::new(roster.clone()));
                    }
                    replicas.insert(row.network, replica);
                }
                Err(error) => {
                    tracing::warn!(network = %row.network, %error, "a kept roster is unusable");
                    core.store.remove_membership(row.network)?;
                }
            }
        }
        Ok(Self { core, local, replicas: Mutex::new(replicas) })
    }

    pub(crate) fn len(&self) -> usize {
        self.replicas.lock().len()
    }

    pub(crate) fn owner(&self, network: NetworkId) -> Option<NodeId> {
        self.replicas.lock().get(&network).map(Replica::owner)
    }

    /// Asks every owner for what was missed while this node was away.
    pub(crate) fn pull_all(self: &Arc<Self>) {
        let known: Vec<_> =
            self.replicas.lock().values().map(|r| (r.network(), r.owner())).collect();
        for (network, owner) in known {
            let this = self.clone();
            self.core.spawn(async move { this.pull(network, owner).await });
        }
    }

    async fn pull(&self, network: NetworkId, owner: NodeId) {
        let mut pause = Duration::from_secs(1);
        for _ in 0..PULLS {
            let Some(epoch) = self.replicas.lock().get(&network).map(Replica::epoch) else {
                return;
            };
            let request = RosterRequest::Pull { network, epoch };
            match self.core.peers.request(owner, proto::ROSTER, &request).await {
                Ok(RosterReply::Done | RosterReply::At { .. } | RosterReply::Need { .. }) => return,
                Err(error) => tracing::debug!(%network, %owner, %error, "cannot ask the owner"),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Takes an update from `peer`, who must be the network's owner.
    pub(crate) fn take(
        &self,
        peer: NodeId,
        network: NetworkId,
        kind: UpdateKind,
        bytes: &[u8],
    ) -> Result<RosterReply, NodeError> {
        let mut replicas = self.replicas.lock();
        let fresh = match replicas.get(&network) {
            Some(known) if known.owner() != peer => return Err(not_owner(peer, network)),
            Some(_) => false,
            None => true,
        };
        if fresh && kind == UpdateKind::Delta {
            return Ok(RosterReply::Need { epoch: 0 });
        }
        if fresh {
            let of_owner = replicas.values().filter(|r| r.owner() == peer).count();
            if of_owner >= PER_OWNER || replicas.len() >= IN_ALL {
                return Err(NodeError::refused("this node follows as many networks as it can"));
            }
        }
        // Work on a copy of a new one only: a refused update leaves nothing behind.
        let mut blank = Replica::new(network, peer);
        let replica = if fresh { &mut blank } else { replicas.get_mut(&network).expect("known") };
        let applied = match kind {
            UpdateKind::Snapshot => replica.apply_full(&Snapshot::decode(bytes)?)?,
            UpdateKind::Delta => replica.apply_delta(&Delta::decode(bytes)?)?,
        };
        if applied == Applied::NeedFull {
            return Ok(RosterReply::Need { epoch: replica.epoch() });
        }
        let Some(roster) = replica.roster() else {
            return Ok(RosterReply::Need { epoch: 0 });
        };
        if fresh && !roster.has_node(self.core.me) {
            return Err(NodeError::refused(format!("this node is not in network {network}")));
        }
        let reply = RosterReply::At {
            epoch: replica.epoch(),
            hash: replica.hash().map_or_else(String::new, |h| hex::encode(h.as_bytes())),
        };
        if applied == Applied::Applied {
            let snapshot = replica.snapshot().map(|s| s.encode()).unwrap_or_default();
            let roster = Arc::new(roster.clone());
            self.core.store.put_membership(&MembershipRow { network, owner: peer, snapshot })?;
            if fresh {
                replicas.insert(network, blank);
            }
            self.local.set(roster);
        }
        Ok(reply)
    }

    /// The owner says that the network is gone, or that this node is not in it any more.
    pub(crate) fn forget(&self, peer: NodeId, network: NetworkId) -> Result<(), NodeError> {
        let mut replicas = self.replicas.lock();
        match replicas.get(&network) {
            None => return Ok(()),
            Some(known) if known.owner() != peer => return Err(not_owner(peer, network)),
            Some(_) => {}
        }
        self.core.store.remove_membership(network)?;
        replicas.remove(&network);
        self.local.remove(network);
        Ok(())
    }
}

fn restored(row: &MembershipRow) -> Result<Replica, ReplicaError> {
    let mut replica = Replica::new(row.network, row.owner);
    replica.apply_full(&Snapshot::decode(&row.snapshot)?)?;
    Ok(replica)
}

fn not_owner(peer: NodeId, network: NetworkId) -> NodeError {
    tracing::warn!(%peer, %network, "orders about a network from a node that does not own it");
    NodeError::forbidden(format!("node {peer} does not own network {network}"))
}

impl From<ReplicaError> for NodeError {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::Signature(_) | ReplicaError::NotTheOwners(..) => Self::forbidden(error),
            ReplicaError::Fork(_) => Self::conflict(error),
            _ => Self::invalid(error),
        }
    }
}
