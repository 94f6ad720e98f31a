//! Many real nodes in one process.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::time::{Duration, Instant};

use gvpn_identity::Identity;
use gvpn_model::NetworkId;
use gvpn_node::{NetworkSpec, Node, NodeConfig};
use gvpn_roster::MemberSpec;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A node that owns networks and others that are in them; the owner and each other know their addresses.
pub struct World {
    pub owner: Node,
    pub others: Vec<Node>,
    _dir: TempDir,
}

impl World {
    pub async fn new(nodes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = start(&dir, 0).await;
        let mut others = Vec::new();
        for n in 1..=nodes {
            let node = start(&dir, n).await;
            owner.net().add_peer_addrs(node.id(), node.status().listen);
            node.net().add_peer_addrs(owner.id(), owner.status().listen);
            others.push(node);
        }
        Self { owner, others, _dir: dir }
    }

    /// A network with this many members beside the owner's, added all at once. Returns how long it
    /// took until everybody knew everybody.
    pub async fn network(&self, prefix: &str, members: u32) -> (NetworkId, Duration) {
        let networks = self.owner.networks();
        let spec = NetworkSpec { ip: prefix.to_owned(), ..NetworkSpec::default() };
        let id = networks.create(&spec).unwrap().id;
        let start = Instant::now();
        for n in 0..members {
            let node = self.others[n as usize % self.others.len()].id();
            networks.add_member(id, MemberSpec::new(node, vec![])).await.unwrap();
        }
        assert!(networks.settled(id, PATIENCE).await.unwrap(), "{:?}", networks.progress(id));
        (id, start.elapsed())
    }

    /// Everybody's roster is the owner's.
    pub fn agree(&self, id: NetworkId) {
        let want = self.owner.networks().roster(id).unwrap();
        for node in self.others.iter().filter(|node| want.has_node(node.id())) {
            let have = node.networks().in_force(id).unwrap();
            assert_eq!((have.epoch, have.hash()), (want.epoch, want.hash()));
        }
    }

    /// Members' nodes that have nothing to say to each other say nothing.
    pub fn quiet(&self) {
        let owner = self.owner.id();
        for node in &self.others {
            let peers = node.peers();
            let strangers: Vec<_> = peers
                .iter()
                .filter(|peer| peer.node != owner && (peer.connected || peer.sent_bytes > 0))
                .collect();
            assert!(strangers.is_empty(), "{strangers:?}");
        }
    }

    /// Stops all nodes at the same time: one after the other they would wait for each other's answers.
    pub async fn stop(self) {
        let mut stopping = JoinSet::new();
        for node in self.others.into_iter().chain([self.owner]) {
            stopping.spawn(async move { node.stop().await });
        }
        stopping.join_all().await;
    }
}

pub async fn start(dir: &TempDir, n: usize) -> Node {
    let mut config = NodeConfig::new(dir.path().join(n.to_string()), Identity::generate());
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.workers = 1;
    config.gates_ahead = 0;
    Node::start(config).await.unwrap()
}
