//! This node as a client of its relays: it registers with all of them, and asks them for peers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gvpn_dataplane::Hop;
use gvpn_model::NodeId;
use gvpn_path::Source;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    NodeRecord, SignedRecord, Stream, StreamReader, StreamWriter,
    connection::Conn,
    relay_protocol::{self as protocol, ToClient, ToRelay},
    shared::Shared,
};

/// How long a relay may take to say where a node is.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a look-up waits for a relay to be connected.
const CONNECT: Duration = Duration::from_secs(5);
/// Waits between attempts to reach a relay.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How long the attempt may take.
const CALL: Duration = Duration::from_secs(5);

/// The relays of this node.
#[derive(Debug)]
pub(crate) struct Relays {
    addrs: Vec<SocketAddr>,
    connected: Mutex<HashMap<SocketAddr, Connected>>,
    /// A relay was connected.
    arrived: Notify,
    /// Why a relay is not connected.
    failures: Mutex<HashMap<SocketAddr, String>>,
    next_request: AtomicU32,
}

#[derive(Debug, Clone)]
struct Connected {
    node: NodeId,
    conn: Arc<Conn>,
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Debug)]
enum Command {
    Find { node: NodeId, answer: oneshot::Sender<Answer> },
    Register,
}

#[derive(Debug)]
struct Answer {
    record: Option<SignedRecord>,
    session: Option<u32>,
}

impl Relays {
    pub(crate) fn new(addrs: Vec<SocketAddr>) -> Self {
        Self {
            addrs,
            connected: Mutex::default(),
            arrived: Notify::new(),
            failures: Mutex::default(),
            next_request: AtomicU32::new(0),
        }
    }

    /// Connects to all relays and stays connected.
    pub(crate) fn start(shared: &Arc<Shared>) {
        for addr in shared.relays.addrs.clone() {
            shared.spawn(stay(Arc::clone(shared), addr));
        }
    }

    /// Tells all relays where this node is now.
    pub(crate) fn publish(&self) {
        for relay in self.connected.lock().values() {
            // The relay's task is gone only while it reconnects, and will register then.
            let _ = relay.commands.send(Command::Register);
        }
    }

    /// Relays at hand, and the nodes that they are.
    pub(crate) fn connected(&self) -> Vec<(SocketAddr, NodeId)> {
        self.connected.lock().iter().map(|(addr, relay)| (*addr, relay.node)).collect()
    }

    /// Makes sure soon that a relay still knows this node.
    pub(crate) fn poke(&self, addr: SocketAddr) {
        if let Some(relay) = self.connected.lock().get(&addr) {
            relay.conn.ping();
        }
    }

    /// The ways to a node according to the relays.
    pub(crate) async fn look_up(&self, node: NodeId, wanted: bool) -> Result<Vec<Hop>, String> {
        if !wanted {
            return Ok(Vec::new());
        }
        if self.addrs.is_empty() {
            return Err("no relay is configured to look it up, and no address was given".into());
        }
        let relays = self.wait_connected().await?;
        let (answers, mut inbox) = mpsc::channel(relays.len().max(1));
        for (addr, relay) in relays {
            let answers = answers.clone();
            tokio::spawn(async move {
                let found = ask(&relay, node).await;
                // Nobody waits for a second answer.
                let _ = answers.send((addr, found)).await;
            });
        }
        drop(answers);
        let mut reasons = Vec::new();
        while let Some((addr, found)) = inbox.recv().await {
            match found.and_then(|answer| hops(node, addr, answer)) {
                Ok(hops) => return Ok(hops),
                Err(reason) => reasons.push(format!("relay {addr}: {reason}")),
            }
        }
        Err(reasons.join("; "))
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
            let each = self.addrs.iter().map(|addr| match failures.get(addr) {
                Some(reason) => format!("relay {addr} cannot be reached: {reason}"),
                None => format!("relay {addr} does not answer"),
            });
            each.collect::<Vec<_>>().join("; ")
        })
    }
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
fn hops(node: NodeId, relay: SocketAddr, answer: Answer) -> Result<Vec<Hop>, String> {
    let Some(signed) = answer.record else {
        return Err("the node is not registered there".into());
    };
    let record = signed.open().map_err(|e| e.to_string())?;
    if record.node != node {
        return Err(format!("it answered with the record of {}", record.node));
    }
    let session = answer.session.map(|session| Hop::Relay { relay, session });
    Ok(record.addrs.into_iter().map(Hop::Direct).chain(session).collect())
}

/// Is connected to a relay for ever.
async fn stay(shared: Arc<Shared>, addr: SocketAddr) {
    let mut retry = FIRST_RETRY;
    loop {
        let called = tokio::time::timeout(CALL, shared.call_addr(addr)).await;
        let reason = match called.unwrap_or_else(|_| Err(format!("no answer within {CALL:?}"))) {
            Ok((_, conn)) => {
                retry = FIRST_RETRY;
                match registered(&shared, addr, conn).await {
                    Ok(()) => "the relay closed the connection".to_owned(),
                    Err(reason) => reason,
                }
            }
            Err(reason) => reason,
        };
        shared.relays.connected.lock().remove(&addr);
        tracing::debug!(relay = %addr, reason, "relay is not connected");
        shared.relays.failures.lock().insert(addr, reason);
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// Registers on a connection and serves it until it ends.
async fn registered(shared: &Arc<Shared>, addr: SocketAddr, conn: Arc<Conn>) -> Result<(), String> {
    let mut stream = Stream::open(&conn, protocol::SERVICE).await.map_err(|e| e.to_string())?;
    stream.keep_alive();
    let (writer, reader) = stream.split();
    let (commands, inbox) = mpsc::unbounded_channel();
    let client = Client { shared: Arc::clone(shared), addr, writer, pending: HashMap::new() };
    let connected = Connected { node: conn.node, conn, commands };
    client.run(reader, inbox, connected).await
}

struct Client {
    shared: Arc<Shared>,
    addr: SocketAddr,
    writer: StreamWriter,
    pending: HashMap<u32, oneshot::Sender<Answer>>,
}

impl Client {
    async fn run(
        mut self,
        reader: StreamReader,
        mut commands: mpsc::UnboundedReceiver<Command>,
        connected: Connected,
    ) -> Result<(), String> {
        let mut messages = protocol::inbox(reader);
        let shared = Arc::clone(&self.shared);
        self.register().await?;
        shared.relays.connected.lock().insert(self.addr, connected);
        shared.relays.failures.lock().remove(&self.addr);
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.handle(message.map_err(|e| e.to_string())?)?,
                    None => return Ok(()),
                },
                command = commands.recv() => match command {
                    Some(Command::Register) => self.register().await?,
                    Some(Command::Find { node, answer }) => self.find(node, answer).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn register(&mut self) -> Result<(), String> {
        let record = my_record(&self.shared);
        self.send(&ToRelay::Register { record }).await
    }

    async fn find(&mut self, node: NodeId, answer: oneshot::Sender<Answer>) -> Result<(), String> {
        let request = self.shared.relays.next_request.fetch_add(1, Ordering::Relaxed);
        self.pending.retain(|_, waiting| !waiting.is_closed());
        self.pending.insert(request, answer);
        self.send(&ToRelay::Find { request, node, session: true }).await
    }

    async fn send(&mut self, message: &ToRelay) -> Result<(), String> {
        protocol::send(&mut self.writer, message).await.map_err(|e| e.to_string())
    }

    fn handle(&mut self, message: ToClient) -> Result<(), String> {
        match message {
            ToClient::Registered { observed } => {
                self.shared.relays.arrived.notify_waiters();
                if let Some(addr) = observed {
                    self.shared.observed(addr);
                }
            }
            ToClient::Found { request, record, session } => {
                if let Some(waiting) = self.pending.remove(&request) {
                    // Whoever asked may have given up.
                    let _ = waiting.send(Answer { record, session });
                }
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
        let relay = self.addr;
        let record = record.and_then(|r| r.open().ok()).filter(|r| r.node == node);
        self.shared.peer(node).path.tell(|agent, now| {
            agent.add_candidate(now, Hop::Relay { relay, session }, Source::Relay);
            for addr in record.into_iter().flat_map(|r| r.addrs) {
                agent.add_candidate(now, Hop::Direct(addr), Source::Record);
            }
        });
    }
}

/// This node's record as of now.
fn my_record(shared: &Shared) -> SignedRecord {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let record = NodeRecord {
        node: shared.identity.node_id(),
        sequence: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        addrs: shared.addrs(),
        relays: shared.relays.addrs.iter().copied().take(crate::MAX_RECORD_ADDRS).collect(),
    };
    SignedRecord::sign(&shared.identity, &record)
}
