//! The conversation with one relay.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gvpn_dataplane::Hop;
use gvpn_model::NodeId;
use gvpn_path::Source;
use tokio::sync::{mpsc, oneshot};

use super::{Connected, streamed};
use crate::{
    NodeRecord, SignedRecord, Stream, StreamReader, StreamWriter,
    connection::Conn,
    relay_protocol::{self as protocol, ToClient, ToRelay},
    shared::Shared,
};

/// Waits between attempts to reach a relay.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How long the attempt may take.
const CALL: Duration = Duration::from_secs(5);
/// How long UDP is tried before a stream is: at first, and where it has reached no relay lately.
const PATIENCE: Duration = Duration::from_secs(2);
const LITTLE_PATIENCE: Duration = Duration::from_millis(500);
/// How often a silent relay is asked whether it is still there: often enough for a NAT.
const KEEP_ALIVE: Duration = Duration::from_secs(8);
/// A visit ends when it is of no use for this long.
const VISIT: Duration = Duration::from_secs(300);

/// What the conversation's task is told to do.
#[derive(Debug)]
pub(super) enum Command {
    Find { node: NodeId, answer: oneshot::Sender<Answer> },
    Register,
    Knock { number: u32, at: SocketAddr },
}

/// A relay's answer about a node.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) record: Option<SignedRecord>,
    pub(super) session: Option<u32>,
}

/// Begins a visit to a relay, unless it is connected or visited.
pub(super) fn visit(shared: &Arc<Shared>, addr: SocketAddr) {
    if shared.relays.connected.lock().contains_key(&addr)
        || !shared.relays.visiting.lock().insert(addr)
    {
        return;
    }
    let task = Arc::clone(shared);
    shared.spawn(async move {
        let visited = async {
            tokio::select! {
                reason = talk(&task, addr) => tracing::debug!(relay = %addr, reason, "visit ended"),
                () = useless(&task, addr) => {}
            }
        };
        visited.await;
        task.relays.connected.lock().remove(&addr);
        task.relays.visiting.lock().remove(&addr);
    });
}

/// Waits for a relay to be connected.
pub(super) async fn wait_for(
    shared: &Shared,
    addr: SocketAddr,
    limit: Duration,
) -> Option<Connected> {
    let waited = tokio::time::timeout(limit, async {
        loop {
            let arrived = shared.relays.arrived.notified();
            if let Some(relay) = shared.relays.connected.lock().get(&addr) {
                return Some(relay.clone());
            }
            if !shared.relays.visiting.lock().contains(&addr) {
                return None;
            }
            // The visit may end without arriving.
            let _ = tokio::time::timeout(Duration::from_millis(200), arrived).await;
        }
    });
    waited.await.ok().flatten()
}

/// Returns when nobody has been reached through a relay for a while.
async fn useless(shared: &Shared, addr: SocketAddr) {
    let mut used = Instant::now();
    while used.elapsed() < VISIT {
        tokio::time::sleep(VISIT / 10).await;
        let peers: Vec<_> = shared.peers.lock().values().cloned().collect();
        let through = |hop: Hop| hop.is_relayed() && shared.relays.owner(hop.wire_addr()) == addr;
        if peers.iter().any(|p| p.usable().is_some() && p.path.active().is_some_and(through)) {
            used = Instant::now();
        }
    }
}

/// Is connected to a relay for ever.
pub(super) async fn stay(shared: Arc<Shared>, addr: SocketAddr) {
    let mut retry = FIRST_RETRY;
    loop {
        let start = Instant::now();
        let reason = talk(&shared, addr).await;
        shared.relays.connected.lock().remove(&addr);
        tracing::debug!(relay = %addr, reason, "relay is not connected");
        shared.relays.failures.lock().insert(addr, reason);
        if start.elapsed() > CALL * 2 {
            retry = FIRST_RETRY;
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// Calls a relay and talks to it until that ends; says why it did.
async fn talk(shared: &Arc<Shared>, addr: SocketAddr) -> String {
    let patience = match (&shared.dialer, shared.relays.udp_works()) {
        (None, _) => CALL,
        (Some(_), Some(false)) => LITTLE_PATIENCE,
        (Some(_), _) => PATIENCE,
    };
    let result = match shared.call_addr(addr, patience).await {
        Ok((_, conn)) => registered(shared, addr, conn).await,
        // Where UDP reaches others, it is this relay that is at fault.
        Err(reason) if shared.relays.udp_works() == Some(true) => Err(reason),
        Err(reason) => streamed::talk(shared, addr, reason).await,
    };
    match result {
        Ok(()) => "the relay closed the connection".to_owned(),
        Err(reason) => reason,
    }
}

/// Registers on a connection and serves it until it ends.
pub(super) async fn registered(
    shared: &Arc<Shared>,
    addr: SocketAddr,
    conn: Arc<Conn>,
) -> Result<(), String> {
    let mut stream = Stream::open(&conn, protocol::SERVICE).await.map_err(|e| e.to_string())?;
    stream.keep_alive_every(KEEP_ALIVE);
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
        let mut route = connected.conn.path.watch();
        let active = *route.borrow_and_update();
        shared.relays.rerouted(&shared, self.addr, active);
        self.register().await?;
        let sessions = shared.relays.sessions_of(self.addr);
        if !sessions.is_empty() {
            self.send(&ToRelay::Resume { sessions }).await?;
        }
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
                    Some(Command::Knock { number, at }) => {
                        self.send(&ToRelay::Knock { number, at }).await?;
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
                    let news = self.shared.addresses.seen_by(self.addr) != observed;
                    self.shared.observed(self.addr, addr);
                    if news {
                        self.shared.addresses.doubt_filtering();
                    }
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
        self.shared.relays.learn_session(&self.shared, self.addr, session, node);
        let record = record.and_then(|r| r.open().ok()).filter(|r| r.node == node);
        self.shared.peer(node).path.tell(|agent, now| {
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
        relays: shared.relays.homes(),
    };
    SignedRecord::sign(&shared.identity, &record)
}
