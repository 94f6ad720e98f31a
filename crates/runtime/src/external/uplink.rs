//! The wire between a runtime's one network card and the networks that it is in.
//!
//! Golem's runtimes have one endpoint for all their networks, known only once they run; the data path
//! wants a vNIC for each network, at `deploy`. So each network gets a pair of sockets at once, and a
//! frame of the runtime goes to the network whose address it bears.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
    os::{fd::OwnedFd, unix::net::UnixDatagram as StdUnixDatagram},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gvpn_model::NetworkId;
use gvpn_vnic::{Nic, NicKind};
use ipnet::IpNet;
use tokio::{
    net::{UdpSocket, UnixDatagram},
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{
    message::Endpoint,
    wire::{self, MAX_FRAME, Sink, Source},
};
use crate::RuntimeError;

/// All of a runtime's networks and endpoints.
#[derive(Debug)]
pub(super) struct Uplink {
    state: Mutex<State>,
    failing: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct State {
    networks: BTreeMap<NetworkId, Arc<Socket>>,
    endpoints: HashMap<Endpoint, Connection>,
}

/// A network's end of its vNIC.
#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    addresses: Mutex<Vec<IpNet>>,
}

/// A connected endpoint.
#[derive(Debug)]
struct Connection {
    sink: Arc<tokio::sync::Mutex<Sink>>,
    networks: Arc<Mutex<BTreeMap<NetworkId, Arc<Socket>>>>,
    /// Dropped to end a network's task, but never in the middle of a frame.
    outward: BTreeMap<NetworkId, oneshot::Sender<()>>,
    inward: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.inward.abort();
    }
}

impl Default for Uplink {
    fn default() -> Self {
        Self { state: Mutex::default(), failing: watch::channel(None).0 }
    }
}

impl Uplink {
    /// Adds a network; the data path's end of its vNIC.
    pub(super) fn add(&self, network: NetworkId, addresses: &[IpNet]) -> Result<Nic, RuntimeError> {
        let failed = || RuntimeError::io("make a socket pair");
        let (ours, theirs) = StdUnixDatagram::pair().map_err(failed())?;
        ours.set_nonblocking(true).map_err(failed())?;
        let socket = UnixDatagram::from_std(ours).map_err(failed())?;
        let socket = Socket { socket, addresses: Mutex::new(addresses.to_vec()) };
        lock(&self.state).networks.insert(network, Arc::new(socket));
        Ok(Nic::new(OwnedFd::from(theirs), NicKind::Dgram))
    }

    /// A network's addresses are now these.
    pub(super) fn update(&self, network: NetworkId, addresses: &[IpNet]) {
        if let Some(socket) = lock(&self.state).networks.get(&network) {
            *lock(&socket.addresses) = addresses.to_vec();
        }
    }

    /// Takes a network away.
    pub(super) fn remove(&self, network: NetworkId) {
        let mut state = lock(&self.state);
        state.networks.remove(&network);
        for connection in state.endpoints.values_mut() {
            lock(&connection.networks).remove(&network);
            connection.outward.remove(&network);
        }
    }

    /// Joins networks to the runtime's endpoint for them.
    pub(super) async fn connect(
        &self,
        endpoint: Endpoint,
        udp: Option<UdpSocket>,
        networks: &[NetworkId],
    ) -> io::Result<()> {
        if !lock(&self.state).endpoints.contains_key(&endpoint) {
            let (source, sink) = wire::connect(&endpoint, udp).await?;
            let connection = Connection::new(source, sink, self.failing.clone());
            lock(&self.state).endpoints.insert(endpoint.clone(), connection);
        }
        let mut state = lock(&self.state);
        let State { networks: all, endpoints } = &mut *state;
        let Some(connection) = endpoints.get_mut(&endpoint) else { return Ok(()) };
        for id in networks {
            let Some(socket) = all.get(id).cloned() else { continue };
            lock(&connection.networks).insert(*id, socket.clone());
            let (held, released) = oneshot::channel();
            tokio::spawn(outward(socket, connection.sink.clone(), released));
            connection.outward.insert(*id, held);
        }
        Ok(())
    }

    /// Forgets all networks and endpoints.
    pub(super) fn close(&self) {
        *lock(&self.state) = State::default();
    }

    /// Returns when an endpoint has failed; says how.
    pub(super) async fn failed(&self) -> String {
        let mut failing = self.failing.subscribe();
        let failed = failing.wait_for(Option::is_some).await;
        failed.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }
}

impl Connection {
    fn new(source: Source, sink: Sink, failing: watch::Sender<Option<String>>) -> Self {
        let networks = Arc::<Mutex<BTreeMap<NetworkId, Arc<Socket>>>>::default();
        let inward = tokio::spawn(inward(source, networks.clone(), failing));
        let sink = Arc::new(tokio::sync::Mutex::new(sink));
        Self { sink, networks, outward: BTreeMap::new(), inward }
    }
}

/// From the runtime to its networks.
async fn inward(
    mut source: Source,
    networks: Arc<Mutex<BTreeMap<NetworkId, Arc<Socket>>>>,
    failing: watch::Sender<Option<String>>,
) {
    let mut frame = vec![0; MAX_FRAME];
    loop {
        let length = match source.receive(&mut frame).await {
            Ok(length) => length,
            Err(reason) => {
                failing.send_replace(Some(reason));
                return;
            }
        };
        let frame = &frame[..length];
        let Some(socket) = choose(&lock(&networks), frame) else { continue };
        // The data path reads always; when its end has gone the network has.
        let _ = socket.socket.send(frame).await;
    }
}

/// From a network to the runtime.
async fn outward(
    socket: Arc<Socket>,
    sink: Arc<tokio::sync::Mutex<Sink>>,
    mut released: oneshot::Receiver<()>,
) {
    let mut frame = vec![0; MAX_FRAME];
    loop {
        let length = tokio::select! {
            received = socket.socket.recv(&mut frame) => received,
            _ = &mut released => return,
        };
        let Ok(length) = length else { return };
        if sink.lock().await.send(&frame[..length]).await.is_err() {
            return;
        }
    }
}

/// The network that a frame of the runtime is for.
fn choose(networks: &BTreeMap<NetworkId, Arc<Socket>>, frame: &[u8]) -> Option<Arc<Socket>> {
    if networks.len() <= 1 {
        return networks.values().next().cloned();
    }
    let (source, target) = addresses(frame)?;
    let has = |test: &dyn Fn(&IpNet) -> bool| {
        networks.values().find(|socket| lock(&socket.addresses).iter().any(test)).cloned()
    };
    has(&|own| own.addr() == source).or_else(|| has(&|own| own.contains(&target)))
}

/// Whom a frame is from and whom it looks for.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<16>()?));
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((v4(14 + 12)?, v4(14 + 16)?)),
        [0x08, 0x06] => Some((v4(14 + 14)?, v4(14 + 24)?)),
        // A neighbour solicitation names whom it looks for.
        [0x86, 0xdd] if frame.get(14 + 6) == Some(&58) && frame.get(54) == Some(&135) => {
            Some((v6(14 + 8)?, v6(54 + 8)?))
        }
        [0x86, 0xdd] => Some((v6(14 + 8)?, v6(14 + 24)?)),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ethertype: [u8; 2], rest: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &ethertype, rest].concat()
    }

    #[tokio::test]
    async fn frames_go_to_the_network_whose_address_they_bear() {
        let uplink = Uplink::default();
        let (one, two) = (NetworkId::random(), NetworkId::random());
        let of = |texts: [&str; 2]| texts.map(|text| text.parse::<IpNet>().unwrap());
        let _a = uplink.add(one, &of(["10.1.0.2/24", "fd01::2/64"])).unwrap();
        let _b = uplink.add(two, &of(["10.2.0.2/24", "fd02::2/64"])).unwrap();
        let networks = lock(&uplink.state).networks.clone();
        let goes = |frame: &[u8]| {
            let chosen = choose(&networks, frame)?;
            networks.iter().find(|(_, s)| Arc::ptr_eq(s, &chosen)).map(|(id, _)| *id)
        };
        let mut ip = vec![0x45; 20];
        ip[12..16].copy_from_slice(&[10, 2, 0, 2]);
        assert_eq!(goes(&frame([8, 0], &ip)), Some(two));
        let mut arp = vec![0; 28];
        arp[24..28].copy_from_slice(&[10, 1, 0, 9]);
        assert_eq!(goes(&frame([8, 6], &arp)), Some(one), "a probe bears no address of its own");
        let mut solicitation = vec![0; 40 + 24];
        solicitation[6] = 58;
        solicitation[40] = 135;
        solicitation[48..64]
            .copy_from_slice(&"fd02::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(goes(&frame([0x86, 0xdd], &solicitation)), Some(two));
        for short in [&frame([8, 0], &[0; 10])[..], &[0; 5], &frame([0, 4], &[0; 60])] {
            assert_eq!(goes(short), None);
        }
    }
}
