//! The clients of a relay.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gvpn_model::NodeId;
use gvpn_net::{
    CONTROL_KNOCK, DataPlane, Hop, Incoming, NetError, Stream, StreamWriter, carrier_id,
    control_message,
    relay_protocol::{self as protocol, Last, ToClient, ToRelay},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{Limits, RelayStats, limit::Bucket, registry::Registry, sessions::Sessions};

/// How often unused sessions are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// All clients of a relay.
#[derive(Debug)]
pub(crate) struct Clients {
    registry: Arc<Registry>,
    sessions: Sessions,
    limits: Limits,
    registered: Mutex<HashMap<NodeId, Registered>>,
    found: AtomicU64,
    not_found: AtomicU64,
    limited: AtomicU64,
    next: AtomicU64,
    /// Sockets that no client has written to, one for each address family that is listened on.
    knockers: Vec<UdpSocket>,
}

#[derive(Debug)]
struct Registered {
    /// Tells a newer registration of the same client from an older one.
    number: u64,
    outbox: mpsc::UnboundedSender<ToClient>,
}

impl Clients {
    pub(crate) fn new(plane: DataPlane, registry: Arc<Registry>, limits: Limits) -> Self {
        Self {
            registry,
            sessions: Sessions::new(plane, limits.clone()),
            limits,
            registered: Mutex::default(),
            found: AtomicU64::new(0),
            not_found: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            next: AtomicU64::new(0),
            knockers: Vec::new(),
        }
    }

    /// Can knock at clients from other ports of these addresses.
    pub(crate) fn with_knockers(mut self, listening: &[SocketAddr]) -> Self {
        let knocker = |addr: &SocketAddr| {
            let socket = UdpSocket::bind((addr.ip(), 0));
            let socket = socket.and_then(|s| s.set_nonblocking(true).map(|()| s));
            socket.map_err(|error| tracing::warn!(%error, "no socket to knock at clients")).ok()
        };
        self.knockers = listening.iter().filter_map(knocker).collect();
        self
    }

    /// Sends a client's socket a datagram from a port that it has not written to. Less than the
    /// request.
    fn knock(&self, addr: SocketAddr, number: u32) {
        let same = |s: &&UdpSocket| s.local_addr().is_ok_and(|a| a.is_ipv4() == addr.is_ipv4());
        if let Some(socket) = self.knockers.iter().find(same) {
            // The client asks again for one that is lost.
            let _ = socket.send_to(&control_message(CONTROL_KNOCK, number), addr);
        }
    }

    pub(crate) fn stats(&self) -> RelayStats {
        RelayStats {
            clients: self.registered.lock().len(),
            found: self.found.load(Ordering::Relaxed),
            not_found: self.not_found.load(Ordering::Relaxed),
            limited: self.limited.load(Ordering::Relaxed),
            sessions: self.sessions.len(),
            ..RelayStats::default()
        }
    }

    /// Forgets what is no longer used.
    pub(crate) fn sweep(&self, now: Instant) {
        let here = |node: NodeId| self.registered.lock().contains_key(&node);
        self.sessions.sweep(now, here);
        self.registry.sweep(here);
    }

    /// A session between a client and a node, if that is here; tells the node.
    fn meet(&self, from: NodeId, to: NodeId) -> Option<u32> {
        let outbox = self.registered.lock().get(&to)?.outbox.clone();
        let session = self.sessions.open(from, to)?;
        let record = self.registry.get(from);
        // The client may have left this moment.
        let _ = outbox.send(ToClient::Session { session, peer: from, record });
        Some(session)
    }

    fn register(&self, node: NodeId, client: Registered) -> bool {
        let mut registered = self.registered.lock();
        let room = registered.contains_key(&node) || registered.len() < self.limits.clients;
        if room {
            registered.insert(node, client);
        }
        room
    }

    fn unregister(&self, node: NodeId, number: u64) {
        let mut registered = self.registered.lock();
        if registered.get(&node).is_some_and(|client| client.number == number) {
            registered.remove(&node);
        }
    }
}

/// Serves clients until the relay ends.
pub(crate) async fn serve(clients: Arc<Clients>, mut incoming: mpsc::Receiver<Incoming>) {
    let mut sweeps = tokio::time::interval(SWEEP);
    loop {
        let call = tokio::select! {
            call = incoming.recv() => call,
            _ = sweeps.tick() => {
                clients.sweep(Instant::now());
                continue;
            }
        };
        let Some(call) = call else { return };
        let clients = Arc::clone(&clients);
        tokio::spawn(async move {
            let node = call.peer;
            if let Err(error) = Client::serve(clients, call.stream).await {
                tracing::debug!(client = %node, %error, "client left");
            }
        });
    }
}

struct Client {
    clients: Arc<Clients>,
    node: NodeId,
    number: u64,
    writer: StreamWriter,
    outbox: mpsc::UnboundedSender<ToClient>,
    requests: Bucket,
    /// Where the client's datagrams came from when it was last told; set once it is registered.
    at: Option<SocketAddr>,
}

impl Client {
    async fn serve(clients: Arc<Clients>, stream: Stream) -> Result<(), NetError> {
        let node = stream.peer();
        let number = clients.next.fetch_add(1, Ordering::Relaxed);
        let (writer, reader) = stream.split();
        let (outbox, posted) = mpsc::unbounded_channel();
        let limits = &clients.limits;
        let requests =
            Bucket::new(Instant::now(), limits.requests_per_second, limits.request_burst);
        let mut client = Self { clients, node, number, writer, outbox, requests, at: None };
        let result = client.run(protocol::inbox(reader), posted).await;
        client.clients.unregister(node, number);
        result
    }

    async fn run(
        &mut self,
        mut messages: mpsc::Receiver<Result<ToRelay, NetError>>,
        mut posted: mpsc::UnboundedReceiver<ToClient>,
    ) -> Result<(), NetError> {
        let mut route = self.writer.route();
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.handle(message?).await?,
                    None => return Ok(()),
                },
                Some(message) = posted.recv() => self.send(&message).await?,
                Ok(()) = route.changed() => {
                    if self.at.is_some() && self.look() != self.at {
                        self.tell_observed().await?;
                    }
                }
            }
        }
    }

    async fn handle(&mut self, message: ToRelay) -> Result<(), NetError> {
        if !self.requests.take(Instant::now()) {
            self.clients.limited.fetch_add(1, Ordering::Relaxed);
            return self.refuse("too many requests: ask less often").await;
        }
        match message {
            ToRelay::Register { record } => {
                let observed = public(self.look());
                if let Err(error) = self.clients.registry.put(self.node, record, observed) {
                    return self.refuse(&error.to_string()).await;
                }
                let client = Registered { number: self.number, outbox: self.outbox.clone() };
                if !self.clients.register(self.node, client) {
                    return self.refuse("the relay has no room for more clients").await;
                }
                self.tell_observed().await
            }
            ToRelay::Find { request, node, session } => {
                let wanted = session && self.at.is_some() && node != self.node;
                let session = if wanted { self.clients.meet(self.node, node) } else { None };
                let record = self.clients.registry.get(node);
                let counter = match record {
                    Some(_) => &self.clients.found,
                    None => &self.clients.not_found,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                let seen = Last(public(self.clients.sessions.seen(self.node, node)));
                self.send(&ToClient::Found { request, record, session, seen }).await
            }
            ToRelay::Knock { number, at } => {
                // Nobody else is to be knocked at.
                if public(self.at).is_some_and(|addr| addr.ip() == at.ip()) {
                    self.clients.knock(at, number);
                }
                Ok(())
            }
            ToRelay::Resume { sessions } => {
                for (session, peer) in sessions {
                    self.clients.sessions.resume(session, self.node, peer);
                }
                Ok(())
            }
        }
    }

    async fn refuse(&mut self, reason: &str) -> Result<(), NetError> {
        self.send(&ToClient::Refused { reason: reason.to_owned() }).await
    }

    async fn tell_observed(&mut self) -> Result<(), NetError> {
        self.at = self.look();
        self.clients.sessions.moved(self.node, self.at);
        self.send(&ToClient::Registered { observed: public(self.at) }).await
    }

    /// Where the client's datagrams come from.
    fn look(&self) -> Option<SocketAddr> {
        let hop = *self.writer.route().borrow();
        match hop? {
            Hop::Direct(addr) => Some(addr),
            Hop::Relay { .. } => None,
        }
    }

    async fn send(&mut self, message: &ToClient) -> Result<(), NetError> {
        protocol::send(&mut self.writer, message).await
    }
}

/// The address, unless it stands for a stream, which means nothing to anybody else.
fn public(addr: Option<SocketAddr>) -> Option<SocketAddr> {
    addr.filter(|addr| carrier_id(*addr).is_none())
}
