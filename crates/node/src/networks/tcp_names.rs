//! Drives the name server over TCP ([`TcpNames`]) of every network whose members here ask it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use gvpn_model::{MemberId, NetworkId};
use gvpn_switch::TcpNames;
use tokio::sync::mpsc;

use super::{local::Local, names};
use crate::core::Core;

/// Packets that may wait for the task that takes them.
const QUEUE: usize = 256;

/// A packet of a member here to the name server's TCP port.
pub(crate) type Segment = (NetworkId, MemberId, Vec<u8>);

/// What came of a question that was asked elsewhere.
type Answer = (NetworkId, u64, Option<Vec<u8>>);

/// A queue of packets, for [`serve`].
pub(crate) fn queue() -> (mpsc::Sender<Segment>, mpsc::Receiver<Segment>) {
    mpsc::channel(QUEUE)
}

/// Answers until the node stops.
pub(crate) fn serve(core: &Arc<Core>, local: &Arc<Local>, mut segments: mpsc::Receiver<Segment>) {
    let (answered, mut answers) = mpsc::channel::<Answer>(QUEUE);
    let (inner, local) = (core.clone(), local.clone());
    core.spawn(async move {
        let mut servers = Servers {
            core: inner,
            local,
            by_network: HashMap::new(),
            start: Instant::now(),
            answered,
        };
        loop {
            let due = servers.due();
            tokio::select! {
                segment = segments.recv() => {
                    let Some((network, member, packet)) = segment else { return };
                    servers.segment(network, member, &packet);
                }
                answer = answers.recv() => {
                    let Some((network, id, answer)) = answer else { return };
                    servers.with(network, |server, now, table| {
                        server.handle_answer(now, table, id, answer.as_deref());
                    });
                }
                () = sleep(due) => servers.timeout(),
            }
        }
    });
}

struct Servers {
    core: Arc<Core>,
    local: Arc<Local>,
    by_network: HashMap<NetworkId, TcpNames>,
    start: Instant,
    answered: mpsc::Sender<Answer>,
}

impl Servers {
    /// How long until a server has something to do.
    fn due(&mut self) -> Option<Duration> {
        let now = self.now();
        let due = self.by_network.values_mut().filter_map(|server| server.poll_timeout(now)).min();
        due.map(|at| Duration::from_nanos(at.saturating_sub(now)))
    }

    fn segment(&mut self, network: NetworkId, member: MemberId, packet: &[u8]) {
        let Some(table) = self.local.table(network) else { return };
        let new = || TcpNames::new(RandomState::new().build_hasher().finish(), table.mtu());
        self.by_network.entry(network).or_insert_with(new);
        self.with(network, |server, now, table| server.handle_packet(now, table, member, packet));
    }

    fn timeout(&mut self) {
        for network in self.by_network.keys().copied().collect::<Vec<_>>() {
            self.with(network, |server, now, table| server.handle_timeout(now, table));
        }
    }

    /// Tells a server something and carries out what it says.
    fn with(
        &mut self,
        network: NetworkId,
        what: impl FnOnce(&mut TcpNames, u64, &gvpn_switch::Table),
    ) {
        let now = self.now();
        let Some(server) = self.by_network.get_mut(&network) else { return };
        let Some(table) = self.local.table(network) else {
            // The node has left the network.
            self.by_network.remove(&network);
            return;
        };
        what(server, now, &table);
        while let Some((member, packet)) = server.poll_transmit() {
            self.core.dataplane().give(network, member, &packet);
        }
        while let Some(question) = server.poll_question() {
            let (resolver, answered) = (self.core.config.resolver, self.answered.clone());
            self.core.spawn(async move {
                let answer = names::ask_over_tcp(resolver, &question.message).await;
                let _ = answered.send((network, question.id, answer)).await;
            });
        }
        if server.is_idle() {
            self.by_network.remove(&network);
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

async fn sleep(due: Option<Duration>) {
    match due {
        // Timers of the runtime are no finer.
        Some(due) => tokio::time::sleep(due.max(Duration::from_millis(1))).await,
        None => std::future::pending().await,
    }
}
