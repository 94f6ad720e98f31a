//! One QUIC connection with a peer that proved who it is.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use gvpn_identity::tls;
use gvpn_model::{NetworkId, NodeId};
use gvpn_path::Nature;
use gvpn_session::Suite;
use parking_lot::Mutex;
use quinn::VarInt;
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;

use crate::{
    NetError, Stream, StreamWriter,
    control::{self, Control, KNOWS},
    flight,
    link::Link,
    messages::{self, Last},
    negotiation::{Action, Negotiation},
    path::PeerPath,
    peer::Peer,
    shared::Shared,
    socket::Socket,
    stream,
};

/// The peer does not answer keep-alives.
const CODE_DEAD: VarInt = VarInt::from_u32(1);
/// The peer has been started anew.
const CODE_RESTARTED: VarInt = VarInt::from_u32(2);
/// The peer broke the protocol.
const CODE_PROTOCOL: VarInt = VarInt::from_u32(3);
/// The node ends.
pub(crate) const CODE_SHUTDOWN: VarInt = VarInt::from_u32(0);
/// A connection that is kept alive is given up after so many intervals without an answer.
const GIVE_UP: u32 = 4;
/// A ping is padded, so that it is long enough to be answered with a stateless reset.
const PING: &[u8] = &[0; 64];

/// A QUIC connection with a peer that proved who it is.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) quic: quinn::Connection,
    pub(crate) link: Arc<Link>,
    pub(crate) born: Instant,
    /// Who the peer is.
    pub(crate) node: NodeId,
    pub(crate) path: Arc<PeerPath>,
    /// Whether this node called.
    caller: bool,
    commands: mpsc::UnboundedSender<Command>,
    keepers: Mutex<Keepers>,
}

/// Who wants the connection kept alive.
#[derive(Debug, Default)]
struct Keepers {
    intervals: Vec<Duration>,
    /// A task sees to it.
    served: bool,
}

/// What the control stream's task is told to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Negotiate a lane.
    Want(NetworkId),
    /// The network is no longer shared with the peer.
    Forget(NetworkId),
    /// Tell the peer where this node can be reached.
    Punch(Vec<SocketAddr>),
    /// Tell the peer what this node's NAT does.
    Nature(Nature),
    /// Tell the peer that this node is ready to guess ports.
    Guess,
}

impl Conn {
    /// Takes over a connection whose handshake is complete, and starts its tasks.
    pub(crate) fn adopt(
        shared: &Arc<Shared>,
        quic: quinn::Connection,
        link: Arc<Link>,
        caller: bool,
    ) -> Result<(Arc<Peer>, Arc<Self>), NetError> {
        let (node, certificate) = identify(&quic)?;
        let peer = shared.peer(node);
        if peer.is_restarted(&certificate) {
            bury_former_life(shared, &peer);
        }
        if shared.links.establish(&link, &peer.path) {
            let (task, link) = (Arc::clone(shared), Arc::clone(&link));
            shared.spawn(async move {
                let again = Socket::say_again(&task.plane, &link);
                // It has no end of its own.
                let _ = tokio::time::timeout(flight::LAST, again).await;
            });
        }
        peer.path.set_silent(false);
        let (commands, inbox) = mpsc::unbounded_channel();
        let conn = Arc::new(Self {
            quic,
            link,
            born: Instant::now(),
            node,
            path: Arc::clone(&peer.path),
            caller,
            commands,
            keepers: Mutex::default(),
        });
        peer.add(&conn);
        tracing::debug!(peer = %node, caller, hop = ?conn.link.latest_hop(), "connected");
        shared.spawn(watch(Arc::clone(shared), Arc::clone(&peer), Arc::clone(&conn)));
        let (first, control) = tokio::sync::oneshot::channel();
        shared.spawn(accept(Arc::clone(shared), Arc::clone(&conn), first));
        shared.spawn(run_control(
            Arc::clone(shared),
            Arc::clone(&peer),
            Arc::clone(&conn),
            control,
            inbox,
        ));
        Ok((peer, conn))
    }

    /// Whether streams can be opened on it.
    pub(crate) fn usable(&self) -> bool {
        self.quic.close_reason().is_none()
    }

    /// Tells the control stream's task to do something.
    pub(crate) fn command(&self, command: Command) {
        // The task is gone only if the connection is.
        let _ = self.commands.send(command);
    }

    /// Packets received so far.
    pub(crate) fn received(&self) -> u64 {
        self.quic.stats().udp_rx.datagrams
    }

    /// Asks for a sign of life.
    pub(crate) fn ping(&self) {
        if let Err(error) = self.quic.send_datagram(Bytes::from_static(PING)) {
            tracing::trace!(peer = %self.node, %error, "no ping");
        }
    }

    /// Returns once nothing at all was heard of the peer for `limit`, however often asked; never if
    /// something is.
    pub(crate) async fn silence(&self, limit: Duration) {
        let before = self.received();
        tokio::time::sleep(limit).await;
        if self.received() != before {
            std::future::pending().await
        }
    }

    /// Keeps the connection alive, and notices when the peer is dead, until released as often.
    pub(crate) fn keep(self: &Arc<Self>, interval: Duration) {
        let mut keepers = self.keepers.lock();
        keepers.intervals.push(interval);
        if !std::mem::replace(&mut keepers.served, true) {
            let conn = Arc::clone(self);
            tokio::spawn(async move { conn.keep_alive().await });
        }
    }

    /// Ends one [`keep`](Self::keep) of this interval.
    pub(crate) fn release(&self, interval: Duration) {
        let intervals = &mut self.keepers.lock().intervals;
        if let Some(at) = intervals.iter().position(|k| *k == interval) {
            intervals.swap_remove(at);
        }
    }

    /// Whether the peer shows a sign of life within `limit`.
    pub(crate) async fn answers(&self, limit: Duration) -> bool {
        let before = self.received();
        self.ping();
        tokio::time::sleep(limit).await;
        self.usable() && self.received() != before
    }

    /// Closes the connection: the peer shows no sign of life.
    pub(crate) fn give_up(&self) {
        self.path.set_silent(true);
        self.quic.close(CODE_DEAD, b"no answer");
    }

    async fn keep_alive(&self) {
        let mut heard = (self.received(), Instant::now());
        while let Some(interval) = self.shortest_interval() {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                _ = self.quic.closed() => return,
            }
            let received = self.received();
            if received != heard.0 {
                heard = (received, Instant::now());
            }
            if heard.1.elapsed() > interval * GIVE_UP {
                tracing::info!(peer = %self.node, "peer does not answer");
                self.path.set_silent(true);
                self.quic.close(CODE_DEAD, b"no answer to keep-alives");
                return;
            }
            self.ping();
        }
    }

    /// How often a sign of life is wanted now. Where none is, the task ends.
    fn shortest_interval(&self) -> Option<Duration> {
        let mut keepers = self.keepers.lock();
        let shortest = keepers.intervals.iter().min().copied().filter(|_| self.usable());
        keepers.served = shortest.is_some();
        shortest
    }
}

/// The peer was started anew and remembers nothing of what was before.
fn bury_former_life(shared: &Shared, peer: &Peer) {
    tracing::info!(peer = %peer.node, "peer was restarted");
    for old in peer.all() {
        old.quic.close(CODE_RESTARTED, b"");
    }
    // Also those whose connection fell silent long ago, and was forgotten.
    shared.lanes.remove_if(|_, node, _| node == peer.node);
    peer.path.tell(|agent, _| agent.peer_restarted());
}

fn identify(quic: &quinn::Connection) -> Result<(NodeId, CertificateDer<'static>), NetError> {
    let chain = quic
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| NetError::Start("TLS gives no certificate of the peer".into()))?;
    let node = tls::peer_node_id(&chain).map_err(|e| NetError::Start(e.to_string()))?;
    let certificate = chain.into_iter().next();
    certificate
        .map(|certificate| (node, certificate))
        .ok_or_else(|| NetError::Start("TLS gives no certificate of the peer".into()))
}

/// Waits for the end and clears up.
async fn watch(shared: Arc<Shared>, peer: Arc<Peer>, conn: Arc<Conn>) {
    let reason = conn.quic.closed().await;
    tracing::debug!(peer = %conn.node, %reason, "connection ended");
    peer.remove(&conn);
    shared.links.remove(&conn.link);
    // A connection that merely fell silent leaves its lanes behind: they are good for as long as
    // they are used. Any other end means that the peer has forgotten them.
    if !matches!(reason, quinn::ConnectionError::TimedOut) {
        let id = conn.quic.stable_id();
        shared.lanes.remove_if(|connection, _, _| connection == id);
    }
    if !shared.lanes.has_peer_lane(conn.node) {
        peer.path.tell(|agent, _| agent.session_down());
    }
}

/// Accepts streams: the control stream, and those of services.
async fn accept(shared: Arc<Shared>, conn: Arc<Conn>, first: tokio::sync::oneshot::Sender<Stream>) {
    let first = Arc::new(Mutex::new(Some(first)));
    while let Ok((send, recv)) = conn.quic.accept_bi().await {
        let stream = Stream::new(&conn, send, recv);
        let (shared, first) = (Arc::clone(&shared), Arc::clone(&first));
        tokio::spawn(async move {
            match stream::welcome(stream).await {
                Ok((service, mut stream)) if service == control::SERVICE => {
                    if stream.accept().await.is_err() {
                        return;
                    }
                    if let Some(first) = first.lock().take() {
                        // The receiver is gone only if the connection is.
                        let _ = first.send(stream);
                    }
                }
                Ok((service, stream)) => shared.serve(&service, stream).await,
                Err(error) => tracing::debug!(%error, "stream refused"),
            }
        });
    }
}

/// The task of the control stream.
async fn run_control(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    conn: Arc<Conn>,
    accepted: tokio::sync::oneshot::Receiver<Stream>,
    commands: mpsc::UnboundedReceiver<Command>,
) {
    let result = async {
        let stream = if conn.caller {
            Stream::open(&conn, control::SERVICE).await?
        } else {
            let ended = |_| conn.error("the connection ended");
            accepted.await.map_err(ended)?
        };
        ControlTask::start(shared, peer, Arc::clone(&conn), stream).await?.run(commands).await
    };
    let result: Result<(), NetError> = result.await;
    if let Err(error) = result {
        tracing::debug!(peer = %conn.node, %error, "control stream ended");
        if matches!(error, NetError::Message { .. }) {
            conn.quic.close(CODE_PROTOCOL, error.to_string().as_bytes());
        }
    }
}

struct ControlTask {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    conn: Arc<Conn>,
    stream: StreamWriter,
    messages: mpsc::Receiver<Result<Control, NetError>>,
    negotiation: Negotiation,
    suite: Suite,
    /// The peer knows of guessing ports.
    guesses: bool,
}

impl ControlTask {
    async fn start(
        shared: Arc<Shared>,
        peer: Arc<Peer>,
        conn: Arc<Conn>,
        stream: Stream,
    ) -> Result<Self, NetError> {
        let (mut stream, reader) = stream.split();
        let (aes, knows) = (shared.aes, Last(KNOWS));
        messages::send(&mut stream, &Control::Hello { aes, knows }).await?;
        let mut messages = messages::inbox(reader);
        let (suite, knows) = match messages.recv().await {
            Some(Ok(Control::Hello { aes, knows })) => match aes && shared.aes {
                true => (Suite::Aes256Gcm, knows),
                false => (Suite::ChaCha20Poly1305, knows),
            },
            Some(Ok(_)) => {
                let reason = "the first message is not a greeting";
                return Err(stream::bad_message(conn.node, &reason));
            }
            Some(Err(error)) => return Err(error),
            None => return Err(conn.error("the connection ended")),
        };
        let negotiation = Negotiation::default();
        let guesses = knows.0 & KNOWS != 0;
        Ok(Self { shared, peer, conn, stream, messages, negotiation, suite, guesses })
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> Result<(), NetError> {
        if self.conn.caller {
            self.want(None).await?;
        }
        let addrs = self.shared.addrs();
        messages::send(&mut self.stream, &Control::Punch { addrs }).await?;
        let nature = self.shared.nature();
        self.peer.path.tell(|agent, _| agent.set_nature(nature));
        self.tell(Control::Nature { number: nature.number() }).await?;
        loop {
            tokio::select! {
                message = self.messages.recv() => match message {
                    Some(message) => self.handle(message?).await?,
                    None => return Ok(()),
                },
                command = commands.recv() => match command {
                    Some(Command::Want(network)) => self.want(Some(network)).await?,
                    Some(Command::Forget(network)) => self.negotiation.forget(network),
                    Some(Command::Punch(addrs)) => {
                        messages::send(&mut self.stream, &Control::Punch { addrs }).await?;
                    }
                    Some(Command::Nature(nature)) => {
                        self.tell(Control::Nature { number: nature.number() }).await?;
                    }
                    Some(Command::Guess) => self.tell(Control::Guess).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Tells what is said only to who knows of guessing ports.
    async fn tell(&mut self, message: Control) -> Result<(), NetError> {
        match self.guesses {
            true => messages::send(&mut self.stream, &message).await,
            false => Ok(()),
        }
    }

    async fn want(&mut self, network: Option<NetworkId>) -> Result<(), NetError> {
        let lanes = &self.shared.lanes;
        let actions = self.negotiation.want(network, || lanes.fresh_index());
        self.act(actions).await
    }

    async fn handle(&mut self, message: Control) -> Result<(), NetError> {
        let path = &self.peer.path;
        match &message {
            Control::Punch { addrs } => {
                self.peer.punch(addrs);
                return Ok(());
            }
            Control::Nature { number } => {
                path.tell(|agent, _| agent.set_peer_nature(Nature::of_number(*number)));
                return Ok(());
            }
            Control::Guess => {
                path.tell(|agent, now| agent.handle_guess_proposed(now));
                return Ok(());
            }
            _ => {}
        }
        let (shared, node) = (&self.shared, self.conn.node);
        let allowed = |network| shared.allowed(network, node);
        let actions = self.negotiation.handle(&message, allowed, || shared.lanes.fresh_index());
        if let (
            Control::Lane { network: Some(network), .. },
            [Action::Send(Control::Refuse { .. })],
        ) = (&message, &actions[..])
        {
            tracing::debug!(peer = %node, %network, "lane refused: not a member as far as known");
            self.peer.note_refused(*network);
        }
        self.act(actions).await
    }

    async fn act(&mut self, actions: Vec<Action>) -> Result<(), NetError> {
        for action in actions {
            match action {
                Action::Send(message) => messages::send(&mut self.stream, &message).await?,
                Action::Add { network, local, remote } => self.shared.lanes.add(
                    &self.conn.quic,
                    (self.conn.node, network),
                    self.conn.caller,
                    self.suite,
                    (local, remote),
                ),
                Action::Activate { network, local } => {
                    self.shared.lanes.activate(local);
                    tracing::debug!(peer = %self.conn.node, ?network, local, "lane");
                    if network.is_none() {
                        self.peer.path.tell(|agent, now| agent.session_up(now));
                    }
                }
                Action::Refused { network } => {
                    tracing::debug!(peer = %self.conn.node, %network, "peer refuses lane");
                }
            }
        }
        Ok(())
    }
}

impl Conn {
    /// The connection's end as an error.
    pub(crate) fn error(&self, otherwise: &str) -> NetError {
        let reason = match self.quic.close_reason() {
            Some(reason) => reason.to_string(),
            None => otherwise.to_owned(),
        };
        NetError::Closed { node: self.node, reason }
    }
}
