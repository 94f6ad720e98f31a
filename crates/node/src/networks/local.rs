//! What this node's data path knows: the roster of every network it is in, as owner or member.

use std::{collections::HashMap, sync::Arc};

use gvpn_model::{NetworkId, NodeId};
use gvpn_net::Net;
use gvpn_roster::Roster;
use gvpn_switch::{Asked, Table};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};

use super::tcp_names::Segment;

/// The rosters in force on this node.
pub(crate) struct Local {
    me: NodeId,
    net: Net,
    rosters: Mutex<HashMap<NetworkId, InForce>>,
    changes: broadcast::Sender<NetworkId>,
    /// Where questions about names of no network go.
    names: Option<mpsc::Sender<(NetworkId, Asked)>>,
    /// Where packets to the name server's TCP port go.
    segments: mpsc::Sender<Segment>,
}

/// One network's roster and the table made from it.
struct InForce {
    roster: Arc<Roster>,
    table: Arc<Table>,
}

impl Local {
    pub(crate) fn new(
        net: Net,
        names: Option<mpsc::Sender<(NetworkId, Asked)>>,
        segments: mpsc::Sender<Segment>,
    ) -> Self {
        let (changes, _) = broadcast::channel(1024);
        Self { me: net.node_id(), net, rosters: Mutex::default(), changes, names, segments }
    }

    /// Puts a roster in force, unless a newer one is.
    pub(crate) fn set(&self, roster: Arc<Roster>) {
        let id = roster.network;
        {
            let mut rosters = self.rosters.lock();
            let table = match rosters.get(&id) {
                Some(present) if present.roster.epoch >= roster.epoch => return,
                Some(present) => present.table.rebuild(&roster),
                None => self.first_table(&roster),
            };
            let table = Arc::new(table);
            self.net.dataplane().set_network(id, table.clone());
            self.net.share_network(id, roster.nodes().into_iter().filter(|n| *n != self.me));
            rosters.insert(id, InForce { roster, table });
        }
        let _ = self.changes.send(id);
    }

    fn first_table(&self, roster: &Roster) -> Table {
        let table = Table::build(roster, self.me);
        let (id, segments) = (roster.network, self.segments.clone());
        table.live().serve_names_with(move |member, packet| {
            segments.try_send((id, member, packet.to_vec())).is_ok()
        });
        if let Some(names) = self.names.clone() {
            table.live().ask_names_of(move |asked| names.try_send((id, asked)).is_ok());
        }
        table
    }

    /// The node is not in this network any more.
    pub(crate) fn remove(&self, id: NetworkId) {
        {
            let mut rosters = self.rosters.lock();
            if rosters.remove(&id).is_none() {
                return;
            }
            self.net.unshare_network(id);
            self.net.dataplane().remove_network(id);
        }
        let _ = self.changes.send(id);
    }

    pub(crate) fn get(&self, id: NetworkId) -> Option<Arc<Roster>> {
        self.rosters.lock().get(&id).map(|present| present.roster.clone())
    }

    /// The networks with a roster in force.
    pub(crate) fn ids(&self) -> Vec<NetworkId> {
        self.rosters.lock().keys().copied().collect()
    }

    /// The table of a network, with its live state.
    pub(crate) fn table(&self, id: NetworkId) -> Option<Arc<Table>> {
        self.rosters.lock().get(&id).map(|present| present.table.clone())
    }

    /// Ids of networks whose roster changed, from now on. A receiver that lags must look at all.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<NetworkId> {
        self.changes.subscribe()
    }
}
