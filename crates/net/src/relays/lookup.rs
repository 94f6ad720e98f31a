//! Finding a peer through relays.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use gvpn_dataplane::Hop;
use gvpn_home::Answer;
use gvpn_model::NodeId;
use tokio::sync::{mpsc, oneshot};

use super::{Order, Relays};
use crate::{SignedRecord, peer::Peer, shared::Shared};

/// For at most so many peers a session is asked for when a relay comes.
const MAX_PREPARED: usize = 64;

/// How long a relay may take to tell where it sees a peer.
const SEEN: Duration = Duration::from_secs(3);

/// Ways to a peer; or, at the end, why there are none.
pub(super) type News = Result<Vec<Hop>, String>;
/// Ways to a peer as they are found.
pub(crate) type Found = mpsc::UnboundedReceiver<News>;

impl Relays {
    /// Looks for ways to a node.
    pub(crate) fn look_up(shared: &Arc<Shared>, node: NodeId) -> Found {
        let (out, found) = mpsc::unbounded_channel();
        let relays = &shared.relays;
        Self::tell(shared, |home, now| {
            let look_up = home.look_up(now, node);
            // What is found is told only after this.
            relays.look_ups.lock().insert(look_up, out);
        });
        found
    }

    /// A relay has come: those whom this node talks to are to be reached through it too, before
    /// the way in use fails.
    pub(super) fn prepare(shared: &Arc<Shared>) {
        let peers: Vec<_> = shared.peers.lock().values().cloned().collect();
        let relays: HashSet<NodeId> = shared.relays.connected().into_iter().map(|r| r.1).collect();
        let talks = |peer: &&Arc<Peer>| {
            let in_use = peer.path.ask(|agent, now| agent.is_in_use(now));
            in_use && peer.usable().is_some() && !relays.contains(&peer.node)
        };
        for peer in peers.iter().filter(talks).take(MAX_PREPARED) {
            // The sessions are learned in any case.
            drop(Self::look_up(shared, peer.node));
        }
    }

    /// Where the relay through which a peer is reached sees it. Only relays that this node is told to use
    /// are believed: others may be the peer's own.
    pub(crate) async fn seen_at(&self, peer: &Peer) -> Option<SocketAddr> {
        let hop = peer.path.active().filter(Hop::is_relayed)?;
        let relay = self.owner(hop.wire_addr());
        if !self.configured.contains(&relay) {
            return None;
        }
        let (answer, seen) = oneshot::channel();
        let order = Order::Where { node: peer.node, answer };
        {
            let talks = self.talks.lock();
            let connected = talks.values().filter(|talk| talk.relay == relay);
            connected.filter_map(|talk| talk.connected.as_ref()).next()?.orders.send(order).ok()?;
        }
        tokio::time::timeout(SEEN, seen).await.ok()?.ok()?
    }

    pub(super) fn inform(&self, look_up: u32, news: News) {
        if let Some(out) = self.look_ups.lock().get(&look_up) {
            // Nobody waits any more if the peer answered meanwhile.
            let _ = out.send(news);
        }
    }

    /// A relay has answered.
    pub(super) fn handle_found(
        shared: &Arc<Shared>,
        relay: SocketAddr,
        request: u32,
        record: Option<SignedRecord>,
        session: Option<u32>,
    ) {
        let asked = shared.relays.home.lock().asked(relay, request);
        if let Some(node) = asked {
            let answer = read(node, record, session);
            Self::tell(shared, |home, now| home.handle_found(now, relay, request, answer));
        }
    }
}

/// What an answer says, if it can be believed.
fn read(
    node: NodeId,
    record: Option<SignedRecord>,
    session: Option<u32>,
) -> Result<Answer, String> {
    let signed = record.ok_or("the node is not registered there")?;
    let record = signed.open().map_err(|e| e.to_string())?;
    if record.node != node {
        return Err(format!("it answered with the record of {}", record.node));
    }
    Ok(Answer { addrs: record.addrs, relays: record.relays, session })
}
