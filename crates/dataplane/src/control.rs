//! Changes of networks, ports, peers and lanes: rare, behind one lock, published as snapshots.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use gvpn_model::{MemberId, NetworkId, NodeId};
use gvpn_switch::Table;

use crate::{
    AttachError, Capture, CaptureSpec, LaneSpec, LaneStats, NetworkStats, Nic, PortId, PortStats,
    Route,
    core::Core,
    network::{Network, State, Tap, Target},
    peer::{Lane, Peer, Slot},
    port::{Owner, Port},
};

/// Everything that is set from outside.
#[derive(Debug, Default)]
pub(crate) struct Control {
    peers: HashMap<NodeId, Arc<Peer>>,
    slots: HashMap<NodeId, HashMap<Option<NetworkId>, Arc<Slot>>>,
    networks: HashMap<NetworkId, Arc<Network>>,
    tables: HashMap<NetworkId, Arc<Table>>,
    ports: HashMap<u64, Arc<Port>>,
    next_port: u64,
    next_lane: u64,
}

impl Control {
    pub(crate) fn peer(&mut self, node: NodeId) -> Arc<Peer> {
        let peer = self.peers.entry(node).or_insert_with(|| Arc::new(Peer::new(node)));
        Arc::clone(peer)
    }

    pub(crate) fn known_peer(&self, node: NodeId) -> Option<&Arc<Peer>> {
        self.peers.get(&node)
    }

    /// The lane that seals probes for a peer.
    pub(crate) fn probe_lane(&self, node: NodeId) -> Option<Arc<Lane>> {
        self.slots.get(&node)?.get(&None)?.active.load_full()
    }

    pub(crate) fn add_lane(&mut self, core: &Core, spec: &LaneSpec) {
        let slot = self.slot(spec.peer, spec.network);
        self.next_lane += 1;
        let lane = Lane::new(slot, &spec.keys, spec.local_index, spec.remote_index, self.next_lane);
        core.lanes.insert(Arc::new(lane));
    }

    pub(crate) fn activate_lane(&self, core: &Core, index: u32) {
        let Some(lane) = core.lanes.get(index) else { return };
        lane.slot.active.store(Some(Arc::clone(&lane)));
        release(core, [Arc::clone(&lane.slot)]);
    }

    pub(crate) fn remove_lane(&self, core: &Core, index: u32) {
        let Some(lane) = core.lanes.remove(index) else { return };
        let active = lane.slot.active.load();
        if active.as_ref().is_some_and(|active| Arc::ptr_eq(active, &lane)) {
            lane.slot.active.compare_and_swap(&active, None);
        }
    }

    pub(crate) fn set_route(&mut self, core: &Core, node: NodeId, route: Option<Route>) {
        let known = route.is_some();
        self.peer(node).route.store(route.map(Arc::new));
        if known && let Some(slots) = self.slots.get(&node) {
            release(core, slots.values().filter(|s| s.network.is_some()).cloned());
        }
    }

    pub(crate) fn set_network(&mut self, id: NetworkId, table: Arc<Table>) {
        self.tables.insert(id, table);
        self.publish(id);
        self.ports.values().filter(|port| port.network.id == id).for_each(|port| port.introduce());
    }

    pub(crate) fn remove_network(&mut self, id: NetworkId) {
        self.tables.remove(&id);
        self.publish(id);
        for slots in self.slots.values_mut() {
            slots.retain(|network, slot| *network != Some(id) || slot.active.load().is_some());
        }
        self.networks.retain(|other, network| *other != id || Arc::strong_count(network) > 1);
    }

    pub(crate) fn attach(
        &mut self,
        core: &Core,
        network: NetworkId,
        owner: Owner,
        nic: Nic,
    ) -> Result<PortId, AttachError> {
        self.forget_closed(core);
        if let Owner::Member(member) = owner
            && self.port_of(network, owner).is_some()
        {
            return Err(AttachError::Taken { network, member });
        }
        let id = PortId(self.next_port);
        let kind = nic.kind();
        let unusable = |source| AttachError::Unusable { kind, source };
        let polls = core.workers.iter().map(|worker| Arc::clone(&worker.poll)).collect();
        let port = Port::new(id, self.network(network), owner, nic, polls).map_err(unusable)?;
        let port = Arc::new(port);
        self.next_port += 1;
        self.ports.insert(id.0, Arc::clone(&port));
        self.publish_ports(core);
        self.publish(network);
        if let Err(source) = port.watch() {
            self.detach(core, id);
            return Err(unusable(source));
        }
        port.introduce();
        Ok(id)
    }

    pub(crate) fn detach(&mut self, core: &Core, id: PortId) {
        self.forget_closed(core);
        let Some(port) = self.ports.remove(&id.0) else { return };
        port.unwatch();
        self.forget_groups(&port);
        self.publish_ports(core);
        self.publish(port.network.id);
    }

    pub(crate) fn refresh_groups(&self, now: u64) {
        for (id, table) in &self.tables {
            table.live().expire(now);
            let members = self
                .ports
                .values()
                .filter(|port| port.network.id == *id && matches!(port.owner, Owner::Member(_)));
            let queries = table.membership_queries();
            for port in members {
                for query in &queries {
                    // A vNIC that is full, or not up yet, is asked again the next time.
                    let _ = port.nic.send_packet(query);
                }
            }
        }
    }

    pub(crate) fn give(&self, network: NetworkId, member: MemberId, packet: &[u8]) {
        if let Some(port) = self.port_of(network, Owner::Member(member)) {
            let _ = port.nic.send_packet(packet);
        }
    }

    /// Memberships of multicast groups that were refused, as too many or too frequent.
    pub(crate) fn refused_groups(&self) -> u64 {
        self.tables.values().map(|table| table.live().refused_groups()).sum()
    }

    pub(crate) fn capture(&mut self, id: NetworkId, spec: CaptureSpec) -> Capture {
        self.network(id).captures.start(spec)
    }

    pub(crate) fn port_stats(&self) -> Vec<PortStats> {
        let mut ports: Vec<_> = self.ports.values().map(|port| port_stats(port)).collect();
        ports.sort_by_key(|port| port.port);
        ports
    }

    pub(crate) fn network_stats(&self) -> Vec<NetworkStats> {
        let mut networks: HashMap<NetworkId, NetworkStats> = HashMap::new();
        for id in self.tables.keys() {
            networks.insert(*id, NetworkStats::new(*id));
        }
        for port in self.ports.values() {
            let id = port.network.id;
            let sum = networks.entry(id).or_insert_with(|| NetworkStats::new(id));
            sum.packets_in += port.packets_in.load(Relaxed);
            sum.bytes_in += port.bytes_in.load(Relaxed);
            sum.packets_out += port.packets_out.load(Relaxed);
            sum.bytes_out += port.bytes_out.load(Relaxed);
        }
        let mut networks: Vec<_> = networks.into_values().collect();
        networks.sort_by_key(|network| network.network);
        networks
    }

    /// Breaks the circle between slots and their lanes.
    pub(crate) fn clear(&mut self, core: &Core) {
        for slots in self.slots.values() {
            slots.values().for_each(|slot| slot.active.store(None));
        }
        for lane in core.lanes.all() {
            core.lanes.remove(lane.local_index);
        }
        for network in self.networks.values() {
            network.state.store(None);
        }
        core.ports.store(Arc::default());
        *self = Self::default();
    }

    fn slot(&mut self, node: NodeId, network: Option<NetworkId>) -> Arc<Slot> {
        if let Some(slot) = self.slots.get(&node).and_then(|slots| slots.get(&network)) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::new(self.peer(node), network.map(|id| self.network(id))));
        self.slots.entry(node).or_default().insert(network, Arc::clone(&slot));
        slot
    }

    fn network(&mut self, id: NetworkId) -> Arc<Network> {
        Arc::clone(self.networks.entry(id).or_insert_with(|| Arc::new(Network::new(id))))
    }

    fn port_of(&self, network: NetworkId, owner: Owner) -> Option<&Arc<Port>> {
        let same = |other: Owner| match (owner, other) {
            (Owner::Member(a), Owner::Member(b)) => a == b,
            _ => false,
        };
        self.ports.values().find(|port| port.network.id == network && same(port.owner))
    }

    /// Drops ports that a thread found closed.
    pub(crate) fn forget_closed(&mut self, core: &Core) {
        for id in std::mem::take(&mut *core.closed.lock()) {
            if let Some(port) = self.ports.remove(&id) {
                self.forget_groups(&port);
                self.publish(port.network.id);
            }
        }
    }

    /// A payload that is gone listens to no multicast groups.
    fn forget_groups(&self, port: &Port) {
        if let (Owner::Member(member), Some(table)) =
            (port.owner, self.tables.get(&port.network.id))
        {
            table.live().forget_member(member);
        }
    }

    fn publish_ports(&self, core: &Core) {
        core.ports.store(Arc::new(self.ports.clone()));
    }

    /// Makes a network's snapshot anew.
    fn publish(&mut self, id: NetworkId) {
        let network = self.network(id);
        let Some(table) = self.tables.get(&id).cloned() else {
            network.state.store(None);
            return;
        };
        let ports: Vec<_> =
            self.ports.values().filter(|port| port.network.id == id).cloned().collect();
        let members: HashMap<_, _> = ports
            .iter()
            .filter_map(|port| match port.owner {
                Owner::Member(member) => Some((member, port)),
                Owner::Pair { .. } => None,
            })
            .collect();
        let me = table.members().iter().find(|row| row.local).map(|row| row.node);
        let nodes: Vec<_> = table
            .nodes()
            .iter()
            .map(|node| (Some(*node) != me).then(|| self.slot(*node, Some(id))))
            .collect();
        let targets = table
            .members()
            .iter()
            .map(|row| match (members.get(&row.id), row.local) {
                (Some(port), true) => Target::Port(Arc::clone(port)),
                (None, true) => Target::Nothing,
                (_, false) => match nodes.get(row.node_ix.0 as usize) {
                    Some(Some(slot)) => Target::Peer(Arc::clone(slot)),
                    _ => Target::Nothing,
                },
            })
            .collect();
        let taps = ports
            .iter()
            .filter_map(|port| match port.owner {
                Owner::Pair { local, remote } => {
                    Some(Tap { local, remote, port: Arc::clone(port) })
                }
                Owner::Member(_) => None,
            })
            .collect();
        network.state.store(Some(Arc::new(State { table, targets, nodes, taps })));
    }
}

/// Has a thread send what waited in these slots.
pub(crate) fn release(core: &Core, slots: impl IntoIterator<Item = Arc<Slot>>) {
    for slot in slots {
        // A peer's slots always go to one thread, so that what waited keeps its order.
        let worker = &core.workers[slot.peer.node.as_bytes()[19] as usize % core.workers.len()];
        worker.releases.lock().push(slot);
        worker.poll.wake();
    }
}

pub(crate) fn lane_stats(core: &Core) -> Vec<LaneStats> {
    let mut lanes: Vec<_> = core.lanes.all();
    lanes.sort_by_key(|lane| lane.sequence);
    lanes
        .iter()
        .map(|lane| LaneStats {
            peer: lane.slot.peer.node,
            network: lane.slot.network.as_ref().map(|network| network.id),
            local_index: lane.local_index,
            active: lane.slot.active.load().as_ref().is_some_and(|other| Arc::ptr_eq(other, lane)),
            suite: lane.suite,
            packets_sent: lane.sealer.used(),
            bytes_sent: lane.bytes_sent.load(Relaxed),
            packets_received: lane.packets_received.load(Relaxed),
            bytes_received: lane.bytes_received.load(Relaxed),
            route: lane.slot.peer.route.load().as_deref().copied(),
        })
        .collect()
}

fn port_stats(port: &Port) -> PortStats {
    PortStats {
        port: port.id,
        network: port.network.id,
        member: match port.owner {
            Owner::Member(member) => Some(member),
            Owner::Pair { .. } => None,
        },
        kind: port.kind,
        super_packets: port.takes_super_packets(),
        marked: port.marked.load(Relaxed),
        packets_in: port.packets_in.load(Relaxed),
        bytes_in: port.bytes_in.load(Relaxed),
        packets_out: port.packets_out.load(Relaxed),
        bytes_out: port.bytes_out.load(Relaxed),
    }
}
