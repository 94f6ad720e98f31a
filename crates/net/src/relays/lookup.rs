//! Finding a peer through relays.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gvpn_dataplane::Hop;
use gvpn_model::NodeId;
use tokio::sync::{mpsc, oneshot};

use super::{
    Connected, Relays,
    client::{self, Answer, Command},
};
use crate::{NodeRecord, shared::Shared};

/// How long a relay may take to say where a node is.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a look-up waits for a relay to be connected.
const CONNECT: Duration = Duration::from_secs(5);
/// At most so many relays of the peer's are visited.
const MAX_VISITS: usize = 3;

/// Ways to a peer as they are found; at the end, if there are none, why.
pub(crate) type Found = mpsc::Receiver<Result<Vec<Hop>, String>>;

impl Relays {
    /// Looks for ways to a node.
    pub(crate) fn look_up(shared: &Arc<Shared>, node: NodeId) -> Found {
        let (out, found) = mpsc::channel(16);
        let task = Arc::clone(shared);
        shared.spawn(async move {
            if let Err(reason) = look_up(&task, node, &out).await {
                // Nobody waits any more if the peer answered meanwhile.
                let _ = out.send(Err(reason)).await;
            }
        });
        found
    }

    async fn wait_connected(&self) -> Result<Vec<(SocketAddr, Connected)>, String> {
        let waited = tokio::time::timeout(CONNECT, async {
            loop {
                let arrived = self.arrived.notified();
                let connected: Vec<_> =
                    self.connected.lock().iter().map(|(a, c)| (*a, c.clone())).collect();
                if !connected.is_empty() {
                    return connected;
                }
                arrived.await;
            }
        });
        waited.await.map_err(|_| {
            let failures = self.failures.lock();
            let each = self.configured.iter().map(|addr| match failures.get(addr) {
                Some(reason) => format!("relay {addr} cannot be reached: {reason}"),
                None => format!("relay {addr} does not answer"),
            });
            each.collect::<Vec<_>>().join("; ")
        })
    }
}

type Out = mpsc::Sender<Result<Vec<Hop>, String>>;

async fn look_up(shared: &Arc<Shared>, node: NodeId, out: &Out) -> Result<(), String> {
    let relays = &shared.relays;
    if relays.configured.is_empty() && relays.connected.lock().is_empty() {
        return Err("no relay is configured to look it up, and no address was given".into());
    }
    let at_hand = relays.wait_connected().await?;
    let asked: Vec<SocketAddr> = at_hand.iter().map(|(addr, _)| *addr).collect();
    let mut answers = ask_all(at_hand, node);
    let mut reasons = Vec::new();
    let mut homes = Vec::new();
    let mut met = false;
    while let Some((addr, answer)) = answers.recv().await {
        match answer.and_then(|answer| read(node, answer)) {
            Ok((record, session)) => {
                met |= session.is_some();
                offer(shared, node, addr, &record, session, out).await;
                homes = record.relays;
            }
            Err(reason) => reasons.push(format!("relay {addr}: {reason}")),
        }
    }
    homes.retain(|home| !asked.contains(home));
    if !met {
        visit(shared, node, &homes, out).await;
    }
    // Every relay's answer is a reason only if none was of use.
    if reasons.len() == asked.len() { Err(reasons.join("; ")) } else { Ok(()) }
}

/// Asks the relays where the peer is at home.
async fn visit(shared: &Arc<Shared>, node: NodeId, homes: &[SocketAddr], out: &Out) {
    for home in homes.iter().take(MAX_VISITS) {
        client::visit(shared, *home);
    }
    for home in homes.iter().take(MAX_VISITS) {
        let Some(relay) = client::wait_for(shared, *home, CONNECT).await else { continue };
        let answer = ask(&relay, node).await.and_then(|answer| read(node, answer));
        if let Ok((record, session @ Some(_))) = answer {
            return offer(shared, node, *home, &record, session, out).await;
        }
    }
}

async fn offer(
    shared: &Arc<Shared>,
    node: NodeId,
    relay: SocketAddr,
    record: &NodeRecord,
    session: Option<u32>,
    out: &Out,
) {
    if let Some(session) = session {
        shared.relays.learn_session(shared, relay, session, node);
    }
    let session = session.map(|session| shared.relays.hop(relay, session));
    let hops = record.addrs.iter().copied().map(Hop::Direct).chain(session).collect();
    // Nobody waits any more if the peer answered meanwhile.
    let _ = out.send(Ok(hops)).await;
}

fn ask_all(
    relays: Vec<(SocketAddr, Connected)>,
    node: NodeId,
) -> mpsc::Receiver<(SocketAddr, Result<Answer, String>)> {
    let (answers, inbox) = mpsc::channel(relays.len().max(1));
    for (addr, relay) in relays {
        let answers = answers.clone();
        tokio::spawn(async move {
            let answer = ask(&relay, node).await;
            // The look-up may have ended.
            let _ = answers.send((addr, answer)).await;
        });
    }
    inbox
}

async fn ask(relay: &Connected, node: NodeId) -> Result<Answer, String> {
    let (answer, answered) = oneshot::channel();
    let gone = "the connection ended";
    relay.commands.send(Command::Find { node, answer }).map_err(|_| gone.to_owned())?;
    match tokio::time::timeout(ANSWER, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(gone.into()),
        Err(_) => Err(format!("no answer within {ANSWER:?}")),
    }
}

/// What an answer says, if it can be believed.
fn read(node: NodeId, answer: Answer) -> Result<(NodeRecord, Option<u32>), String> {
    let Some(signed) = answer.record else {
        return Err("the node is not registered there".into());
    };
    let record = signed.open().map_err(|e| e.to_string())?;
    if record.node != node {
        return Err(format!("it answered with the record of {}", record.node));
    }
    Ok((record, answer.session))
}

/// A relay no longer knows a session: asks for a new one.
pub(super) fn renew_session(shared: &Arc<Shared>, relay: SocketAddr, session: u32, node: NodeId) {
    let task = Arc::clone(shared);
    shared.spawn(async move {
        // If the relay has forgotten this node altogether, the session is resumed by the new
        // registration; that is waited for.
        tokio::time::sleep(super::CHECK + Duration::from_millis(200)).await;
        let known = task.relays.sessions.lock().remove(&(relay, session));
        let Some(connected) = task.relays.connected.lock().get(&relay).cloned() else { return };
        if known.is_none() || connected.conn.born.elapsed() < super::CHECK * 2 {
            // Another message took care of it, or it was resumed just now.
            if let Some(node) = known {
                task.relays.sessions.lock().insert((relay, session), node);
            }
            return;
        }
        if let Ok((_, Some(fresh))) = ask(&connected, node).await.and_then(|a| read(node, a)) {
            task.relays.learn_session(&task, relay, fresh, node);
        }
    });
}
