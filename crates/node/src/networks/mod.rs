//! Networks: those that this node owns, and its memberships in others'.

mod capture;
mod gate;
mod hits;
mod info;
mod live;
mod local;
mod member;
mod multicast;
mod names;
mod owner;
mod push;
mod service;
mod tcp_names;
mod view;

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use gvpn_gate::{ConnectionInfo, Gateway};
use gvpn_model::{MemberId, NetworkId, NodeId, addressing};
use gvpn_roster::{Member, MemberEdit, MemberSpec, OwnerBook, Roster, SettingsEdit};
use gvpn_vnic::Namespace;
use ipnet::IpNet;

use crate::{NodeError, core::Core};

pub use capture::{CaptureStream, CaptureWish};
pub use gate::Tap;
pub use hits::RuleRow;
pub use info::{NetworkInfo, NetworkSpec, NodeRow, Progress};
pub(crate) use local::Local;
pub(crate) use view::network_config;

use gate::Gates;
use member::Memberships;
use owner::{Books, Owned};
use push::Pusher;

/// How long a roster may take to reach a node that is to act on it.
const REACH: Duration = Duration::from_secs(20);

/// The network service. Clones are handles of the same one.
#[derive(Clone)]
pub struct Networks {
    inner: Arc<Inner>,
}

struct Inner {
    me: NodeId,
    core: Arc<Core>,
    local: Arc<Local>,
    books: Arc<Books>,
    memberships: Arc<Memberships>,
    pusher: Arc<Pusher>,
    gates: Arc<Gates>,
}

impl Networks {
    /// Takes up the networks that were kept and starts to serve and distribute rosters.
    pub(crate) fn start(core: &Arc<Core>) -> Result<Self, NodeError> {
        let names = names::serve(core);
        let (segments, arrived) = tcp_names::queue();
        let local = Arc::new(Local::new(core.net.clone(), names, segments));
        tcp_names::serve(core, &local, arrived);
        let books = Arc::new(Books::restore(core.clone(), local.clone())?);
        let memberships = Arc::new(Memberships::restore(core.clone(), local.clone())?);
        let pusher = Arc::new(Pusher::new(core.clone(), books.clone()));
        let gates = Arc::new(Gates::new(core.clone()));
        let me = core.me;
        let inner = Inner { me, core: core.clone(), local, books, memberships, pusher, gates };
        let this = Self { inner: Arc::new(inner) };
        multicast::serve(core, this.local());
        live::serve(core, &this);
        hits::serve(core, &this);
        capture::serve(core, &this);
        service::serve(core, this.inner.memberships.clone(), this.inner.pusher.clone());
        this.resume(core)?;
        Ok(this)
    }

    /// Makes a network owned by this node.
    ///
    /// # Errors
    /// `Invalid` for a prefix, gateway, name or MTU that makes no sense.
    pub fn create(&self, spec: &NetworkSpec) -> Result<NetworkInfo, NodeError> {
        let owned = self.inner.books.create(spec.check()?)?;
        let info = NetworkInfo::of(&owned.book.lock());
        Ok(info)
    }

    /// The networks this node owns.
    pub fn list(&self) -> Vec<NetworkInfo> {
        self.inner.books.all().iter().map(|owned| NetworkInfo::of(&owned.book.lock())).collect()
    }

    /// How many networks of others this node is in.
    pub fn memberships(&self) -> usize {
        self.inner.memberships.len()
    }

    /// How many networks this node owns.
    pub fn owned(&self) -> usize {
        self.inner.books.len()
    }

    /// One network this node owns.
    ///
    /// # Errors
    /// `NotFound`, or `Forbidden` when it is someone else's.
    pub fn get(&self, id: NetworkId) -> Result<NetworkInfo, NodeError> {
        self.read(id, NetworkInfo::of)
    }

    /// The whole roster of a network this node owns.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn roster(&self, id: NetworkId) -> Result<Roster, NodeError> {
        self.read(id, |book| book.roster().clone())
    }

    /// The roster in force on this node, of a network it owns or is a member of.
    pub fn in_force(&self, id: NetworkId) -> Option<Arc<Roster>> {
        self.inner.local.get(id)
    }

    /// Removes a network from every member. Removing it again finds nothing.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn remove(&self, id: NetworkId) -> Result<(), NodeError> {
        self.owned_by_me(id)?;
        let members = self.inner.books.remove(id)?;
        self.inner.pusher.tell(id, &members);
        self.inner.gates.remove(id).await;
        Ok(())
    }

    /// The owner's own addresses, with the prefix length.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn addresses(&self, id: NetworkId) -> Result<Vec<IpNet>, NodeError> {
        self.read(id, |book| book.roster().interface_addresses(book.owner_member()))
    }

    /// Gives the owner an address. The first takes the place of the automatic one.
    ///
    /// # Errors
    /// As [`get`](Self::get); `Invalid` for an impossible address, `Conflict` for a taken one.
    pub async fn add_address(&self, id: NetworkId, ip: &str) -> Result<(), NodeError> {
        let ip = addressing::parse_host(ip)?;
        self.change(id, |book| book.add_owner_address(ip)).await.map(drop)
    }

    /// Every address of every node.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn nodes(&self, id: NetworkId) -> Result<Vec<NodeRow>, NodeError> {
        self.read(id, |book| {
            let members = book.roster().members.iter();
            members.flat_map(|m| m.ips.iter().map(|ip| NodeRow { id: m.node, ip: *ip })).collect()
        })
    }

    /// Adds a node with an address; repeating it changes nothing. Each address of another node is
    /// a member of its own, since each may be another activity's.
    ///
    /// # Errors
    /// As [`add_address`](Self::add_address).
    pub async fn add_node(
        &self,
        id: NetworkId,
        node: NodeId,
        ip: &str,
    ) -> Result<Member, NodeError> {
        let ip = addressing::parse_host(ip)?;
        let (member, _) = self.change(id, |book| book.add_node(node, ip)).await?;
        self.member(id, member)
    }

    /// Removes a node with all its addresses.
    ///
    /// # Errors
    /// As [`get`](Self::get); `NotFound` for a node that is not in the network; `Conflict` for the
    /// owner, who cannot leave.
    pub async fn remove_node(&self, id: NetworkId, node: NodeId) -> Result<(), NodeError> {
        self.change(id, |book| book.remove_node(node)).await
    }

    /// Adds a member; without addresses it gets the next free one of every prefix.
    ///
    /// # Errors
    /// As [`add_address`](Self::add_address).
    pub async fn add_member(&self, id: NetworkId, spec: MemberSpec) -> Result<Member, NodeError> {
        let member = self.change(id, |book| book.add_member(spec)).await?;
        self.member(id, member)
    }

    /// Changes a member while its payload runs.
    ///
    /// # Errors
    /// As [`add_address`](Self::add_address); `NotFound` for an unknown member.
    pub async fn edit_member(
        &self,
        id: NetworkId,
        member: MemberId,
        edit: MemberEdit,
    ) -> Result<Member, NodeError> {
        self.change(id, |book| book.edit_member(member, edit)).await?;
        self.member(id, member)
    }

    /// Removes one member.
    ///
    /// # Errors
    /// As [`get`](Self::get); `NotFound` for an unknown member.
    pub async fn remove_member(&self, id: NetworkId, member: MemberId) -> Result<(), NodeError> {
        self.change(id, |book| book.remove_member(member)).await
    }

    /// Changes name, MTU, routes, hosts or policy.
    ///
    /// # Errors
    /// As [`get`](Self::get); `Invalid` or `Conflict` for what cannot be.
    pub async fn edit(&self, id: NetworkId, edit: SettingsEdit) -> Result<NetworkInfo, NodeError> {
        self.change(id, |book| book.edit_settings(edit)).await?;
        self.get(id)
    }

    /// Makes any change that the owner's book offers.
    ///
    /// # Errors
    /// As [`get`](Self::get), and what the book says.
    pub async fn change<T>(
        &self,
        id: NetworkId,
        change: impl FnOnce(&mut OwnerBook) -> Result<T, gvpn_roster::BookError>,
    ) -> Result<T, NodeError> {
        let owned = self.owned_by_me(id)?;
        let changed = self.inner.books.change(&owned, change)?;
        if !changed.tell.is_empty() {
            self.inner.pusher.tell(id, &changed.tell);
        }
        let roster = owned.book.lock().roster().clone();
        self.inner.gates.refresh(&roster).await;
        self.open_gate_ahead(roster);
        Ok(changed.value)
    }

    /// One member.
    ///
    /// # Errors
    /// As [`get`](Self::get); `NotFound` for an unknown member.
    pub fn member(&self, id: NetworkId, member: MemberId) -> Result<Member, NodeError> {
        self.read(id, |book| book.roster().member(member).cloned())?
            .ok_or_else(|| NodeError::not_found(format!("network {id} has no member {member}")))
    }

    /// How far each member node has followed.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn progress(&self, id: NetworkId) -> Result<Vec<Progress>, NodeError> {
        let nodes = self.read(id, |book| book.roster().nodes())?;
        let others: Vec<_> = nodes.into_iter().filter(|node| *node != self.inner.me).collect();
        Ok(self.inner.pusher.progress(id, &others))
    }

    /// The gateway into a network this node owns, made if need be.
    ///
    /// # Errors
    /// As [`get`](Self::get); `Unavailable` when the host does not allow namespaces.
    pub async fn gateway(&self, id: NetworkId) -> Result<Gateway, NodeError> {
        self.inner.gates.gateway(&self.roster(id)?).await
    }

    /// The namespace that the gate's sockets live in: programs started inside are in the network,
    /// with the owner's address.
    ///
    /// # Errors
    /// As [`gateway`](Self::gateway).
    pub async fn namespace(&self, id: NetworkId) -> Result<Arc<Namespace>, NodeError> {
        self.inner.gates.namespace(&self.roster(id)?).await
    }

    /// Connections that are open through the gate.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn connections(&self, id: NetworkId) -> Result<Vec<ConnectionInfo>, NodeError> {
        self.owned_by_me(id)?;
        let gateway = self.inner.gates.existing(id).await;
        Ok(gateway.map(|gateway| gateway.connections()).unwrap_or_default())
    }

    /// A socket of Ethernet frames between an address of the owner and one of a member.
    ///
    /// # Errors
    /// As [`get`](Self::get); `Forbidden` for a local address that is not the owner's, `NotFound`
    /// for a remote one that nobody has.
    pub fn tap(
        &self,
        id: NetworkId,
        local: IpAddr,
        remote: IpAddr,
    ) -> Result<(OwnedFd, Tap), NodeError> {
        let roster = self.roster(id)?;
        let owner = roster.members_of(self.inner.me).any(|member| member.ips.contains(&local));
        if !owner {
            return Err(NodeError::forbidden(format!(
                "{local} is not an address of the network's owner: raw frames may only come from one"
            )));
        }
        if roster.holder(remote).is_none() {
            return Err(NodeError::not_found(format!("no member of network {id} has {remote}")));
        }
        self.inner.gates.tap(id, local, remote)
    }

    /// Checks that the gate can go to `remote` at all.
    ///
    /// # Errors
    /// As [`get`](Self::get); `NotFound` for an address that nobody has.
    pub fn check_remote(&self, id: NetworkId, remote: SocketAddr) -> Result<(), NodeError> {
        let roster = self.roster(id)?;
        let ip = remote.ip();
        let routed = roster.settings.routes.iter().any(|route| route.destination.contains(&ip));
        if routed || roster.holder(ip).is_some() {
            return Ok(());
        }
        Err(NodeError::not_found(format!("no member of network {id} has address {ip}")))
    }

    /// Waits until `node` follows the present roster, when this node owns the network.
    pub(crate) async fn ensure(&self, id: NetworkId, node: NodeId) -> Result<(), NodeError> {
        let Some(owned) = self.inner.books.get(id) else { return Ok(()) };
        if !owned.book.lock().roster().has_node(node) {
            return Ok(());
        }
        self.inner.pusher.ensure(id, node, REACH).await
    }

    /// The rosters in force.
    pub(crate) fn local(&self) -> &Arc<Local> {
        &self.inner.local
    }

    /// After a start: everybody hears about every network, and this node asks what it missed.
    fn resume(&self, core: &Core) -> Result<(), NodeError> {
        for owned in self.inner.books.all() {
            let roster = owned.book.lock().roster().clone();
            let nodes = roster.nodes().into_iter();
            let others: Vec<_> = nodes.filter(|node| *node != self.inner.me).collect();
            self.inner.pusher.tell(roster.network, &others);
            self.open_gate_ahead(roster);
        }
        for (network, node) in core.store.farewells()? {
            self.inner.pusher.tell(network, &[node]);
        }
        self.inner.memberships.pull_all();
        Ok(())
    }

    fn open_gate_ahead(&self, roster: Roster) {
        let this = self.clone();
        self.inner.core.spawn(async move {
            this.inner.gates.open_ahead(&roster).await;
            // The network may have gone, or changed, meanwhile.
            match this.roster(roster.network) {
                Ok(now) => this.inner.gates.refresh(&now).await,
                Err(_) => this.inner.gates.remove(roster.network).await,
            }
        });
    }

    fn read<T>(&self, id: NetworkId, read: impl FnOnce(&OwnerBook) -> T) -> Result<T, NodeError> {
        let owned = self.owned_by_me(id)?;
        let book = owned.book.lock();
        Ok(read(&book))
    }

    fn owned_by_me(&self, id: NetworkId) -> Result<Arc<Owned>, NodeError> {
        if let Some(owned) = self.inner.books.get(id) {
            return Ok(owned);
        }
        Err(match self.inner.memberships.owner(id) {
            Some(owner) => NodeError::forbidden(format!(
                "network {id} belongs to {owner}: only its owner may see and change it"
            )),
            None => NodeError::not_found(format!("there is no network {id}")),
        })
    }
}

impl From<addressing::AddressError> for NodeError {
    fn from(error: addressing::AddressError) -> Self {
        Self::invalid(error)
    }
}
