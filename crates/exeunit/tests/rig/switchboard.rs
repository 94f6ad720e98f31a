//! The product's own data path and switch between the vNICs of a test, with networks as owners make
//! them: whatever kind of vNIC a runtime has meets here what it meets in a daemon.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use gvpn_dataplane::{Config, DataPlane, Nic as PortNic, PortId, PortSpec};
use gvpn_exeunit::NetworkConfig;
use gvpn_identity::Identity;
use gvpn_model::{MemberId, NetworkId, NodeId};
use gvpn_roster::{MemberEdit, MemberSpec, NetworkSpec, OwnerBook, Roster};
use gvpn_switch::Table;
use gvpn_vnic::{Nic, NicKind};

#[derive(Clone)]
pub struct Switchboard {
    pub plane: DataPlane,
    owner: Identity,
    me: NodeId,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    books: HashMap<NetworkId, OwnerBook>,
    ports: HashMap<(NetworkId, MemberId), PortId>,
    /// vNICs of networks that the data path is kept away from, once they are there.
    aside: HashMap<NetworkId, Option<Nic>>,
}

impl Switchboard {
    pub fn new() -> Self {
        let config = Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
        let (plane, mut events, mut datagrams) = DataPlane::start(config).unwrap();
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        tokio::spawn(async move { while datagrams.recv().await.is_some() {} });
        let me = Identity::generate().node_id();
        Self { plane, owner: Identity::generate(), me, state: Arc::default() }
    }

    /// A network of these prefixes.
    pub fn network(&self, prefixes: &[&str]) -> NetworkId {
        let mut spec = NetworkSpec::new(prefixes[0].parse().unwrap());
        spec.subnets.extend(prefixes[1..].iter().map(|prefix| (prefix.parse().unwrap(), None)));
        let salt = random_salt();
        let book = OwnerBook::create(self.owner.clone(), salt, spec).unwrap();
        let id = book.network();
        self.state.lock().unwrap().books.insert(id, book);
        self.publish(id);
        id
    }

    /// Adds a member; what its payload is to see of the network.
    pub fn member(&self, network: NetworkId, name: &str, ips: &[&str]) -> NetworkConfig {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let spec = MemberSpec { name: Some(name.to_owned()), ..MemberSpec::new(self.me, ips) };
        let member = self.change(network, |book| book.add_member(spec).unwrap());
        self.config(network, member)
    }

    /// Changes a member; what its payload is to see now.
    pub fn edit(&self, network: NetworkId, member: MemberId, edit: MemberEdit) -> NetworkConfig {
        self.change(network, |book| book.edit_member(member, edit).unwrap());
        self.config(network, member)
    }

    pub fn config(&self, network: NetworkId, member: MemberId) -> NetworkConfig {
        let state = self.state.lock().unwrap();
        config(state.books[&network].roster(), member)
    }

    /// The member of this name.
    pub fn member_named(&self, network: NetworkId, name: &str) -> MemberId {
        let state = self.state.lock().unwrap();
        let members = &state.books[&network].roster().members;
        members.iter().find(|m| m.name.as_deref() == Some(name)).unwrap().id
    }

    /// Keeps the data path away from this network's next vNIC, for [`take`](Self::take).
    pub fn set_aside(&self, network: NetworkId) {
        self.state.lock().unwrap().aside.insert(network, None);
    }

    /// The vNIC that was kept away from the data path.
    pub fn take(&self, network: NetworkId) -> Option<Nic> {
        self.state.lock().unwrap().aside.get_mut(&network)?.take()
    }

    pub fn attach(&self, network: NetworkId, member: MemberId, nic: Nic) -> Result<(), String> {
        if let Some(place) = self.state.lock().unwrap().aside.get_mut(&network) {
            *place = Some(nic);
            return Ok(());
        }
        let nic = match nic.kind {
            NicKind::TunVnet => {
                PortNic::TunQueues(std::iter::once(nic.fd).chain(nic.queues).collect())
            }
            NicKind::Tun => PortNic::Tun(nic.fd),
            NicKind::Stream => PortNic::Stream(nic.fd),
            NicKind::Stream2 => PortNic::Stream2(nic.fd),
            NicKind::Dgram => PortNic::Dgram(nic.fd),
            NicKind::VhostUser => PortNic::VhostUser(nic.fd),
        };
        self.detach(network, member);
        let port =
            self.plane.attach(PortSpec { network, member, nic }).map_err(|e| e.to_string())?;
        self.state.lock().unwrap().ports.insert((network, member), port);
        Ok(())
    }

    pub fn detach(&self, network: NetworkId, member: MemberId) {
        if let Some(port) = self.state.lock().unwrap().ports.remove(&(network, member)) {
            self.plane.detach(port);
        }
    }

    fn change<T>(&self, network: NetworkId, how: impl FnOnce(&mut OwnerBook) -> T) -> T {
        let changed = how(self.state.lock().unwrap().books.get_mut(&network).unwrap());
        self.publish(network);
        changed
    }

    fn publish(&self, network: NetworkId) {
        let state = self.state.lock().unwrap();
        let table = Table::build(state.books[&network].roster(), self.me);
        self.plane.set_network(network, Arc::new(table));
    }
}

fn random_salt() -> [u8; 16] {
    let text = NetworkId::random().to_string();
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

fn config(roster: &Roster, member: MemberId) -> NetworkConfig {
    let member = roster.member(member).unwrap();
    let gateways: Vec<_> = roster.settings.subnets.iter().map(|subnet| subnet.gateway).collect();
    let named = roster.members.iter().filter_map(|m| Some((m.name.clone()?, &m.ips)));
    NetworkConfig {
        network: roster.network,
        member: member.id,
        addresses: roster.nic_addresses(member),
        gateways: gateways.clone(),
        routes: vec![],
        mtu: roster.settings.mtu,
        hosts: named
            .flat_map(|(name, ips)| ips.iter().map(move |ip| (name.clone(), *ip)))
            .collect(),
        dns: gateways,
        search: vec![format!("{}.vpn", roster.dns_label())],
    }
}
