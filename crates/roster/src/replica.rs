//! The member's side: follows what the owner signs.

use gvpn_model::{MemberId, NetworkId, NodeId};

use crate::{
    Change, Delta, Head, MAX_MEMBERS, Member, Roster, RosterHash, Settings, SignedHead, Snapshot,
    digest::Digest, network_id,
};

/// What became of an update that was in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The roster is at the update's epoch now.
    Applied,
    /// The roster was at that epoch or a later one already.
    Stale,
    /// The update starts from an epoch that has not arrived here: ask for a snapshot, or for a
    /// delta from [`Replica::epoch`].
    NeedFull,
}

/// An update that is refused; the roster stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// Bytes that are no update.
    #[error("the roster update is malformed")]
    Malformed,
    /// Another network's.
    #[error("the roster update is for network {0}")]
    WrongNetwork(NetworkId),
    /// The network id does not follow from the owner.
    #[error("network {0} is not {1}'s: the id does not follow from that owner")]
    NotTheOwners(NetworkId, NodeId),
    /// Not signed by the owner.
    #[error("the roster update is not signed by the network's owner {0}")]
    Signature(NodeId),
    /// The content is not what the owner signed.
    #[error("the roster update does not add up to the hash that the owner signed for epoch {0}")]
    Hash(u64),
    /// The owner signed two rosters of one epoch.
    #[error("the owner signed two different rosters of epoch {}; the first is kept", .0.epoch)]
    Fork(Box<Fork>),
    /// More members than a network may have.
    #[error("the roster has {0} members, more than a network may have")]
    TooLarge(usize),
}

/// Proof that an owner signed two rosters of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The epoch.
    pub epoch: u64,
    /// The head that is kept.
    pub kept: SignedHead,
    /// The head that was refused.
    pub refused: SignedHead,
}

/// A member's copy of a network's roster.
#[derive(Debug, Clone)]
pub struct Replica {
    network: NetworkId,
    owner: NodeId,
    state: Option<State>,
}

#[derive(Debug, Clone)]
struct State {
    head: SignedHead,
    hash: RosterHash,
    roster: Roster,
    digest: Digest,
}

impl Replica {
    /// A replica that has heard nothing yet.
    pub fn new(network: NetworkId, owner: NodeId) -> Self {
        Self { network, owner, state: None }
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The node whose signature counts.
    pub fn owner(&self) -> NodeId {
        self.owner
    }

    /// The roster, once there is one.
    pub fn roster(&self) -> Option<&Roster> {
        self.state.as_ref().map(|s| &s.roster)
    }

    /// The epoch of the roster; zero when there is none.
    pub fn epoch(&self) -> u64 {
        self.state.as_ref().map_or(0, |s| s.roster.epoch)
    }

    /// Hash of the roster, to prove what this member follows.
    pub fn hash(&self) -> Option<RosterHash> {
        self.state.as_ref().map(|s| s.hash)
    }

    /// The roster with the owner's signature: to keep, or to pass on to other members.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let state = self.state.as_ref()?;
        Some(Snapshot { head: state.head.clone(), roster: state.roster.clone() })
    }

    /// Takes a whole roster.
    ///
    /// # Errors
    /// [`ReplicaError`]; the roster stays as it was.
    pub fn apply_full(&mut self, update: &Snapshot) -> Result<Applied, ReplicaError> {
        let Some(head) = self.admit(&update.head)? else { return Ok(Applied::Stale) };
        let roster = &update.roster;
        if roster.network != self.network || roster.owner != self.owner {
            return Err(ReplicaError::WrongNetwork(roster.network));
        }
        if network_id(roster.owner, &roster.salt) != self.network {
            return Err(ReplicaError::NotTheOwners(self.network, self.owner));
        }
        if roster.members.len() > MAX_MEMBERS {
            return Err(ReplicaError::TooLarge(roster.members.len()));
        }
        if !roster.members.is_sorted_by(|a, b| a.id < b.id) {
            return Err(ReplicaError::Malformed);
        }
        let digest = Digest::of(roster);
        if roster.epoch != head.epoch || digest.root(head.epoch) != head.hash {
            return Err(ReplicaError::Hash(head.epoch));
        }
        let (head, hash, roster) = (update.head.clone(), head.hash, roster.clone());
        self.state = Some(State { head, hash, roster, digest });
        Ok(Applied::Applied)
    }

    /// Takes a change.
    ///
    /// # Errors
    /// [`ReplicaError`]; the roster stays as it was. After [`ReplicaError::Hash`] a snapshot helps.
    pub fn apply_delta(&mut self, update: &Delta) -> Result<Applied, ReplicaError> {
        let claimed = update.head.peek()?;
        if claimed.epoch > self.epoch() && (self.state.is_none() || update.from > self.epoch()) {
            return Ok(Applied::NeedFull);
        }
        let Some(head) = self.admit(&update.head)? else { return Ok(Applied::Stale) };
        let Some(state) = self.state.as_mut() else { return Ok(Applied::NeedFull) };
        state.follow(&update.head, head, &update.changes)?;
        Ok(Applied::Applied)
    }

    /// Checks a head; `None` when it is not news.
    fn admit(&self, signed: &SignedHead) -> Result<Option<Head>, ReplicaError> {
        let head = signed.peek()?;
        if head.network != self.network {
            return Err(ReplicaError::WrongNetwork(head.network));
        }
        let known = self.state.as_ref();
        if head.epoch < self.epoch() || known.is_some_and(|s| s.hash == head.hash) {
            return Ok(None);
        }
        signed.verify(self.owner)?;
        match known {
            Some(state) if state.roster.epoch == head.epoch => {
                let (kept, refused) = (state.head.clone(), signed.clone());
                Err(ReplicaError::Fork(Box::new(Fork { epoch: head.epoch, kept, refused })))
            }
            _ => Ok(Some(head)),
        }
    }
}

impl State {
    /// Makes the changes if they lead to `head`, else none of them.
    fn follow(
        &mut self,
        signed: &SignedHead,
        head: Head,
        changes: &[Change],
    ) -> Result<(), ReplicaError> {
        let undo: Vec<_> = changes.iter().map(|change| self.make(change.clone())).collect();
        let fits = self.roster.members.len() <= MAX_MEMBERS;
        if fits && self.digest.root(head.epoch) == head.hash {
            self.roster.epoch = head.epoch;
            self.hash = head.hash;
            self.head = signed.clone();
            return Ok(());
        }
        let members = self.roster.members.len();
        for change in undo.into_iter().rev() {
            self.make(change);
        }
        Err(if fits { ReplicaError::Hash(head.epoch) } else { ReplicaError::TooLarge(members) })
    }

    /// Makes one change and returns the one that takes it back.
    fn make(&mut self, change: Change) -> Change {
        match change {
            Change::Member(member) => self.put(member),
            Change::Removed(id) => self.remove(id),
            Change::Settings(settings) => self.set(settings),
        }
    }

    fn put(&mut self, member: Member) -> Change {
        self.digest.set_member(&member);
        match self.roster.position(member.id) {
            Ok(at) => Change::Member(std::mem::replace(&mut self.roster.members[at], member)),
            Err(at) => {
                let id = member.id;
                self.roster.members.insert(at, member);
                Change::Removed(id)
            }
        }
    }

    fn remove(&mut self, id: MemberId) -> Change {
        self.digest.remove_member(id);
        match self.roster.position(id) {
            Ok(at) => Change::Member(self.roster.members.remove(at)),
            Err(_) => Change::Removed(id),
        }
    }

    fn set(&mut self, settings: Box<Settings>) -> Change {
        self.digest.set_settings(&settings);
        Change::Settings(Box::new(std::mem::replace(&mut self.roster.settings, *settings)))
    }
}
