//! The owner's side: the book in which a network is changed.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::OnceLock,
};

use gvpn_identity::Identity;
use gvpn_model::{MemberId, NetworkId, NodeId, addressing};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    BookError, Change, Delta, Head, MAX_SUBNETS, Member, MemberSpec, Policy, Roster, RosterHash,
    Settings, SignedHead, Snapshot, Subnet, check_name,
    delta::{decode, encode},
    digest::Digest,
    log::{ChangeLog, Part},
    network_id,
};

mod addresses;
mod golem;
mod members;
mod settings;

/// The version of [`OwnerBook::save`]'s bytes.
const SAVE_VERSION: u8 = 1;
/// The MTU of a network whose owner does not say: an Ethernet underlay carries it through a relay.
const DEFAULT_MTU: u16 = 1400;
/// The id of the owner's own member.
const OWNER_MEMBER: MemberId = MemberId(0);

/// A network to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its prefixes, each with its gateway (the first host if none is named).
    pub subnets: Vec<(IpNet, Option<IpAddr>)>,
    /// Its MTU, if not the usual one.
    pub mtu: Option<u16>,
}

impl NetworkSpec {
    /// A network of one prefix.
    pub fn new(prefix: IpNet) -> Self {
        Self { name: None, subnets: vec![(prefix, None)], mtu: None }
    }
}

/// Why a saved book cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bytes are damaged or of another version.
    #[error("the saved network is damaged or was written by another version")]
    Damaged,
    /// It belongs to another identity.
    #[error("the saved network belongs to {0}, not to this identity")]
    Owner(NodeId),
}

/// The one place where a network changes. Every change is checked as a whole and refused as a
/// whole; one that is accepted and changes something makes a new epoch.
#[derive(Debug, Clone)]
pub struct OwnerBook {
    identity: Identity,
    roster: Roster,
    digest: Digest,
    hash: RosterHash,
    log: ChangeLog,
    /// Who has which address and name.
    addresses: HashMap<IpAddr, MemberId>,
    names: HashMap<String, MemberId>,
    next_member: u32,
    /// The owner's addresses that it was given without asking.
    automatic: Vec<IpAddr>,
    /// Where the search for a free address goes on, by prefix.
    cursors: BTreeMap<IpNet, u128>,
    head: OnceLock<SignedHead>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u8,
    roster: Roster,
    next_member: u32,
    automatic: Vec<IpAddr>,
}

impl OwnerBook {
    /// Makes a network at epoch 1. The owner is its first member and has the first host of every
    /// prefix, until it asks for another address. `salt` must be random: the network's id follows from it.
    ///
    /// # Errors
    /// [`BookError`] when the specification cannot be.
    pub fn create(
        identity: Identity,
        salt: [u8; 16],
        spec: NetworkSpec,
    ) -> Result<Self, BookError> {
        let subnets = settings::check_subnets(&spec.subnets)?;
        let mtu = settings::check_mtu(spec.mtu.unwrap_or(DEFAULT_MTU))?;
        let name = spec.name.as_deref().map(check_name).transpose()?;
        let owner = identity.node_id();
        let ips: Vec<_> = subnets.iter().map(|s| addressing::first_host(s.prefix)).collect();
        let me = Member::from_spec(OWNER_MEMBER, MemberSpec::new(owner, ips.clone()));
        let roster = Roster {
            network: network_id(owner, &salt),
            owner,
            salt,
            epoch: 1,
            settings: Settings {
                name,
                subnets,
                mtu,
                routes: Vec::new(),
                hosts: BTreeMap::new(),
                policy: Policy::default(),
            },
            members: vec![me],
        };
        Ok(Self::with(
            identity,
            Saved { version: SAVE_VERSION, roster, next_member: 1, automatic: ips },
        ))
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(identity: Identity, bytes: &[u8]) -> Result<Self, RestoreError> {
        let saved: Saved = decode(bytes).map_err(|_| RestoreError::Damaged)?;
        if saved.version != SAVE_VERSION {
            return Err(RestoreError::Damaged);
        }
        if saved.roster.owner != identity.node_id() {
            return Err(RestoreError::Owner(saved.roster.owner));
        }
        Ok(Self::with(identity, saved))
    }

    /// Everything that must survive a restart. Keep it before an epoch goes out: an owner that
    /// forgets an epoch that others saw would sign it twice.
    pub fn save(&self) -> Vec<u8> {
        encode(&Saved {
            version: SAVE_VERSION,
            roster: self.roster.clone(),
            next_member: self.next_member,
            automatic: self.automatic.clone(),
        })
    }

    /// The network as it is.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The network's id.
    pub fn network(&self) -> NetworkId {
        self.roster.network
    }

    /// The number of the present state.
    pub fn epoch(&self) -> u64 {
        self.roster.epoch
    }

    /// Hash of the present state.
    pub fn hash(&self) -> RosterHash {
        self.hash
    }

    /// The owner's own member.
    pub fn owner_member(&self) -> &Member {
        &self.roster.members[0]
    }

    /// The present state, signed.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { head: self.head().clone(), roster: self.roster.clone() }
    }

    /// What changed since `epoch`, signed; `None` when only a [`snapshot`](Self::snapshot) will do.
    pub fn delta_since(&self, epoch: u64) -> Option<Delta> {
        if epoch > self.roster.epoch {
            return None;
        }
        let changes = self.log.since(epoch)?.map(|part| self.change(part)).collect();
        Some(Delta { head: self.head().clone(), from: epoch, changes })
    }

    /// Makes the present state newer than `epoch`: for an owner that finds members ahead of it,
    /// after its own state came back from an old copy.
    pub fn overtake(&mut self, epoch: u64) {
        if epoch >= self.roster.epoch {
            self.roster.epoch = epoch.saturating_add(1);
            self.log = ChangeLog::starting_at(self.roster.epoch);
            self.seal();
        }
    }

    fn with(identity: Identity, saved: Saved) -> Self {
        let roster = saved.roster;
        let mut addresses = HashMap::new();
        let mut names = HashMap::new();
        for member in &roster.members {
            addresses.extend(member.ips.iter().map(|ip| (*ip, member.id)));
            names.extend(member.name.clone().map(|name| (name, member.id)));
        }
        let digest = Digest::of(&roster);
        Self {
            identity,
            hash: digest.root(roster.epoch),
            digest,
            log: ChangeLog::starting_at(roster.epoch),
            addresses,
            names,
            next_member: saved.next_member,
            automatic: saved.automatic,
            cursors: BTreeMap::new(),
            head: OnceLock::new(),
            roster,
        }
    }

    fn head(&self) -> &SignedHead {
        self.head.get_or_init(|| {
            let (network, epoch) = (self.roster.network, self.roster.epoch);
            SignedHead::sign(&self.identity, &Head { network, epoch, hash: self.hash })
        })
    }

    fn change(&self, part: Part) -> Change {
        match part {
            Part::Settings => Change::Settings(Box::new(self.roster.settings.clone())),
            Part::Member(id) => match self.roster.member(id) {
                Some(member) => Change::Member(member.clone()),
                None => Change::Removed(id),
            },
        }
    }

    /// Makes accepted changes, all in one new epoch. Without changes there is none.
    fn commit(&mut self, changes: Vec<Change>) -> bool {
        if changes.is_empty() {
            return false;
        }
        self.roster.epoch += 1;
        for change in changes {
            match change {
                Change::Member(member) => self.put(member),
                Change::Removed(id) => self.remove(id),
                Change::Settings(settings) => {
                    self.digest.set_settings(&settings);
                    self.roster.settings = *settings;
                    self.log.record(Part::Settings, self.roster.epoch);
                }
            }
        }
        self.seal();
        true
    }

    /// The state is as it shall be: its hash is known, its head has yet to be signed.
    fn seal(&mut self) {
        self.hash = self.digest.root(self.roster.epoch);
        self.head = OnceLock::new();
    }

    fn put(&mut self, member: Member) {
        self.forget(member.id);
        self.addresses.extend(member.ips.iter().map(|ip| (*ip, member.id)));
        self.names.extend(member.name.clone().map(|name| (name, member.id)));
        self.digest.set_member(&member);
        self.log.record(Part::Member(member.id), self.roster.epoch);
        match self.roster.position(member.id) {
            Ok(at) => self.roster.members[at] = member,
            Err(at) => self.roster.members.insert(at, member),
        }
    }

    fn remove(&mut self, id: MemberId) {
        self.forget(id);
        self.digest.remove_member(id);
        self.log.record(Part::Member(id), self.roster.epoch);
        if let Ok(at) = self.roster.position(id) {
            self.roster.members.remove(at);
        }
    }

    fn forget(&mut self, id: MemberId) {
        let Some(member) = self.roster.member(id) else { return };
        for ip in &member.ips {
            if self.addresses.get(ip) == Some(&id) {
                self.addresses.remove(ip);
            }
        }
        if let Some(name) = &member.name
            && self.names.get(name) == Some(&id)
        {
            self.names.remove(name);
        }
    }
}

/// How many subnets fit.
pub(crate) fn room_for_subnets(count: usize) -> Result<(), BookError> {
    if count > MAX_SUBNETS {
        return Err(BookError::TooMany { what: "prefixes", limit: MAX_SUBNETS });
    }
    Ok(())
}

pub(crate) fn prefixes(subnets: &[Subnet]) -> String {
    let texts: Vec<_> = subnets.iter().map(|s| s.prefix.to_string()).collect();
    texts.join(", ")
}
