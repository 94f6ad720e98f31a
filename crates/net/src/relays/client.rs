//! The conversation with one relay.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use gvpn_dataplane::Hop;
use gvpn_home::Request;
use gvpn_model::NodeId;
use gvpn_path::Source;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Connected, Relays, streamed};
use crate::{
    NodeRecord, SignedRecord, Stream, StreamReader, StreamWriter,
    connection::Conn,
    filtering::Filtering,
    relay_protocol::{self as protocol, ToClient, ToRelay},
    shared::Shared,
};

/// How long the attempt may take.
const CALL: Duration = Duration::from_secs(5);
/// How long UDP is tried before a stream is: at first, and where it has reached no relay lately.
const PATIENCE: Duration = Duration::from_secs(2);
const LITTLE_PATIENCE: Duration = Duration::from_millis(500);

/// The bit that tells these requests from those that look for ways to a peer.
const ASKED: u32 = 1 << 31;

/// What the conversation's task is told to say.
#[derive(Debug)]
pub(super) enum Order {
    Request(Request),
    Knock {
        number: u32,
        at: SocketAddr,
    },
    /// Where does the relay see a node?
    Where {
        node: NodeId,
        answer: oneshot::Sender<Option<SocketAddr>>,
    },
}

/// A conversation that is to be had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) addr: SocketAddr,
    pub(super) call: u64,
}

/// Calls a relay, talks to it until that ends, and says so.
pub(super) async fn call(shared: Arc<Shared>, wanted: Wanted) {
    let reason = talk(&shared, wanted).await;
    let Wanted { addr, call } = wanted;
    tracing::debug!(relay = %addr, reason, "relay is not connected");
    shared.relays.talks.lock().remove(&call);
    Relays::tell(&shared, |home, now| home.handle_ended(now, call, &reason));
}

/// Calls a relay and talks to it until that ends; says why it did.
async fn talk(shared: &Arc<Shared>, wanted: Wanted) -> String {
    let patience = match (&shared.dialer, shared.relays.udp_works()) {
        (None, _) => CALL,
        (Some(_), Some(false)) => LITTLE_PATIENCE,
        (Some(_), _) => PATIENCE,
    };
    let result = match shared.call_addr(wanted.addr, patience).await {
        Ok((_, conn)) => registered(shared, wanted, conn).await,
        // Where UDP reaches others, it is this relay that is at fault.
        Err(reason) if shared.relays.udp_works() == Some(true) => Err(reason),
        Err(reason) => streamed::talk(shared, wanted, reason).await,
    };
    match result {
        Ok(()) => "the relay closed the connection".to_owned(),
        Err(reason) => reason,
    }
}

/// Registers on a connection and serves it until it ends.
pub(super) async fn registered(
    shared: &Arc<Shared>,
    wanted: Wanted,
    conn: Arc<Conn>,
) -> Result<(), String> {
    let Wanted { addr, call } = wanted;
    let stream = Stream::open(&conn, protocol::SERVICE).await.map_err(|e| e.to_string())?;
    let (writer, reader) = stream.split();
    let mut route = conn.path.watch();
    let active = *route.borrow_and_update();
    shared.relays.rerouted(shared, addr, active);
    let (orders, inbox) = mpsc::unbounded_channel();
    let rtt = conn.quic.rtt();
    match shared.relays.talks.lock().get_mut(&call) {
        Some(talk) => talk.connected = Some(Connected { conn, orders }),
        None => return Err("nobody is waiting for it any more".into()),
    }
    Relays::tell(shared, |home, now| home.handle_connected(now, call, rtt));
    Relays::prepare(shared);
    let client = Client { shared: Arc::clone(shared), addr, writer, asked: HashMap::new() };
    client.run(reader, inbox, route).await
}

struct Client {
    shared: Arc<Shared>,
    addr: SocketAddr,
    writer: StreamWriter,
    /// Who waits to know where the relay sees a node.
    asked: HashMap<u32, oneshot::Sender<Option<SocketAddr>>>,
}

impl Client {
    async fn run(
        mut self,
        reader: StreamReader,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut route: watch::Receiver<Option<Hop>>,
    ) -> Result<(), String> {
        let mut messages = protocol::inbox(reader);
        let shared = Arc::clone(&self.shared);
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.handle(message.map_err(|e| e.to_string())?)?,
                    None => return Ok(()),
                },
                order = orders.recv() => match order {
                    Some(Order::Request(request)) => self.request(request).await?,
                    Some(Order::Knock { number, at }) => {
                        self.send(&ToRelay::Knock { number, at }).await?;
                    }
                    Some(Order::Where { node, answer }) => {
                        self.asked.retain(|_, answer| !answer.is_closed());
                        let request = rand::random::<u32>() | ASKED;
                        self.asked.insert(request, answer);
                        self.send(&ToRelay::Find { request, node, session: false }).await?;
                    }
                    None => return Ok(()),
                },
                Ok(()) = route.changed() => {
                    let active = *route.borrow_and_update();
                    shared.relays.rerouted(&shared, self.addr, active);
                }
            }
        }
    }

    async fn request(&mut self, request: Request) -> Result<(), String> {
        let message = match request {
            Request::Register { relays } => {
                ToRelay::Register { record: my_record(&self.shared, relays) }
            }
            Request::Resume { sessions } => ToRelay::Resume { sessions },
            Request::Find { request, node } => ToRelay::Find { request, node, session: true },
        };
        self.send(&message).await
    }

    async fn send(&mut self, message: &ToRelay) -> Result<(), String> {
        protocol::send(&mut self.writer, message).await.map_err(|e| e.to_string())
    }

    fn handle(&mut self, message: ToClient) -> Result<(), String> {
        match message {
            ToClient::Registered { observed } => {
                if let Some(addr) = observed {
                    let addresses = &self.shared.addresses;
                    let news = addresses.seen_by(self.addr) != observed;
                    self.shared.observed(self.addr, addr);
                    // Where it sees this node, an answer to a probe may have told before.
                    if news || addresses.filtering() == Filtering::Unknown {
                        addresses.doubt_filtering();
                    }
                }
            }
            ToClient::Found { request, seen, .. } if self.asked.contains_key(&request) => {
                if let Some(answer) = self.asked.remove(&request) {
                    // Whoever asked may wait no longer.
                    let _ = answer.send(seen.0);
                }
            }
            ToClient::Found { request, record, session, .. } => {
                Relays::handle_found(&self.shared, self.addr, request, record, session);
            }
            ToClient::Session { session, peer, record } => {
                self.offered(session, peer, record);
            }
            ToClient::Refused { reason } => return Err(reason),
        }
        Ok(())
    }

    /// A peer is about to call through the relay.
    fn offered(&self, session: u32, node: NodeId, record: Option<SignedRecord>) {
        Relays::tell(&self.shared, |home, _| home.handle_session(self.addr, session, node));
        let record = record.and_then(|r| r.open().ok()).filter(|r| r.node == node);
        self.shared.peer(node).path.tell(|agent, now| {
            for addr in record.into_iter().flat_map(|r| r.addrs) {
                agent.add_candidate(now, Hop::Direct(addr), Source::Record);
            }
        });
    }
}

/// This node's record as of now.
fn my_record(shared: &Shared, relays: Vec<SocketAddr>) -> SignedRecord {
    let node = shared.identity.node_id();
    let (sequence, addrs) = (shared.relays.next_sequence(), shared.addrs());
    SignedRecord::sign(&shared.identity, &NodeRecord { node, sequence, addrs, relays })
}
