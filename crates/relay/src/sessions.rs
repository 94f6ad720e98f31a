//! Who may send to whom through the relay.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gvpn_model::NodeId;
use gvpn_net::{DataPlane, End, Meter};
use parking_lot::Mutex;

use crate::Limits;

/// A session that carries nothing for this long is forgotten.
const UNUSED: Duration = Duration::from_secs(600);

/// The forwarding sessions of a relay: one for each pair of clients that asked for it.
#[derive(Debug)]
pub(crate) struct Sessions {
    plane: DataPlane,
    limits: Limits,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    by_id: HashMap<u32, Session>,
    by_pair: HashMap<(NodeId, NodeId), u32>,
    clients: HashMap<NodeId, Client>,
}

#[derive(Debug)]
struct Session {
    pair: (NodeId, NodeId),
    carried: u64,
    used: Instant,
}

#[derive(Debug)]
struct Client {
    addr: Option<SocketAddr>,
    former: Option<SocketAddr>,
    meter: Arc<Meter>,
    sessions: HashSet<u32>,
    /// Those of them that only the others asked for.
    uninvited: HashSet<u32>,
}

impl Sessions {
    pub(crate) fn new(plane: DataPlane, limits: Limits) -> Self {
        plane.forwarder().enable();
        Self { plane, limits, books: Mutex::default() }
    }

    /// A client is here now, or somewhere else than before.
    pub(crate) fn moved(&self, node: NodeId, addr: Option<SocketAddr>) {
        let mut books = self.books.lock();
        let client = self.client(&mut books, node);
        if client.addr == addr {
            return;
        }
        client.former = std::mem::replace(&mut client.addr, addr);
        let sessions = client.sessions.clone();
        for session in sessions {
            self.set(&books, session);
        }
    }

    /// The session that client `a` asks for, made if need be; `None` if one has too many.
    pub(crate) fn open(&self, a: NodeId, b: NodeId) -> Option<u32> {
        let mut books = self.books.lock();
        if let Some(session) = books.by_pair.get(&pair(a, b)).copied() {
            self.client(&mut books, a).uninvited.remove(&session);
            return Some(session);
        }
        let session = loop {
            let session = rand::random();
            if !books.by_id.contains_key(&session) {
                break session;
            }
        };
        self.add(&mut books, session, a, b).then_some(session)
    }

    /// Client `a` knows a session from before the relay was started anew.
    pub(crate) fn resume(&self, session: u32, a: NodeId, b: NodeId) {
        let mut books = self.books.lock();
        let books = &mut *books;
        if let Some(known) = books.by_pair.get(&pair(a, b)) {
            if let Some(client) = books.clients.get_mut(&a) {
                client.uninvited.remove(known);
            }
        } else if a != b && !books.by_id.contains_key(&session) {
            self.add(books, session, a, b);
        }
    }

    /// Where client `b` is, if `a` and `b` have a session.
    pub(crate) fn seen(&self, a: NodeId, b: NodeId) -> Option<SocketAddr> {
        let books = self.books.lock();
        books.by_pair.get(&pair(a, b))?;
        books.clients.get(&b)?.addr
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.books.lock().by_id.len()
    }

    /// Forgets sessions that are no longer used, and clients without any that are not here.
    pub(crate) fn sweep(&self, now: Instant, here: impl Fn(NodeId) -> bool) {
        let mut books = self.books.lock();
        let forwarder = self.plane.forwarder();
        let mut stale = Vec::new();
        for (id, session) in &mut books.by_id {
            let carried = forwarder.carried(*id).map_or(0, |(packets, _)| packets);
            if carried != session.carried {
                (session.carried, session.used) = (carried, now);
            } else if now.saturating_duration_since(session.used) > UNUSED {
                stale.push(*id);
            }
        }
        for id in stale {
            forwarder.remove(id);
            let Some(session) = books.by_id.remove(&id) else { continue };
            books.by_pair.remove(&session.pair);
            for node in [session.pair.0, session.pair.1] {
                if let Some(client) = books.clients.get_mut(&node) {
                    client.sessions.remove(&id);
                    client.uninvited.remove(&id);
                }
            }
        }
        books.clients.retain(|node, client| !client.sessions.is_empty() || here(*node));
    }

    /// A session that `a` asks for. What others ask for takes no more than half of the sessions
    /// that a client may have, so that it can always ask for some itself.
    fn add(&self, books: &mut Books, session: u32, a: NodeId, b: NodeId) -> bool {
        let limit = self.limits.sessions_per_client;
        if [a, b].iter().any(|node| self.client(books, *node).sessions.len() >= limit) {
            return false;
        }
        let uninvited = &mut self.client(books, b).uninvited;
        if uninvited.len() >= limit.div_ceil(2) {
            return false;
        }
        uninvited.insert(session);
        for node in [a, b] {
            self.client(books, node).sessions.insert(session);
        }
        let pair = pair(a, b);
        books.by_id.insert(session, Session { pair, carried: 0, used: Instant::now() });
        books.by_pair.insert(pair, session);
        self.set(books, session);
        true
    }

    /// Tells the data plane where the ends of a session are.
    fn set(&self, books: &Books, session: u32) {
        let Some(known) = books.by_id.get(&session) else { return };
        let end = |node| {
            let client = books.clients.get(&node);
            client.map(|c| End { addr: c.addr, former: c.former, meter: Arc::clone(&c.meter) })
        };
        if let (Some(a), Some(b)) = (end(known.pair.0), end(known.pair.1)) {
            self.plane.forwarder().set(session, [a, b]);
        }
    }

    fn client<'a>(&self, books: &'a mut Books, node: NodeId) -> &'a mut Client {
        let rate = self.limits.bytes_per_second;
        books.clients.entry(node).or_insert_with(|| Client {
            addr: None,
            former: None,
            meter: Meter::new(rate),
            sessions: HashSet::new(),
            uninvited: HashSet::new(),
        })
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}
