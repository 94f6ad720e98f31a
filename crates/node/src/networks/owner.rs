//! The owner's side: the books, and every change of them.

use std::{collections::BTreeMap, sync::Arc};

use gvpn_model::{NetworkId, NodeId};
use gvpn_roster::{BookError, Delta, OwnerBook, Snapshot};
use parking_lot::{Mutex, RwLock};

use crate::{NodeError, core::Core, networks::local::Local};

/// A network that this node owns.
pub(crate) struct Owned {
    pub(crate) book: Mutex<OwnerBook>,
}

/// What a member that follows up to some epoch needs.
pub(crate) enum Update {
    Snapshot(Snapshot),
    Delta(Delta),
}

/// The books of the networks that this node owns.
pub(crate) struct Books {
    core: Arc<Core>,
    local: Arc<Local>,
    owned: RwLock<BTreeMap<NetworkId, Arc<Owned>>>,
}

/// What a change did.
pub(crate) struct Changed<T> {
    pub(crate) value: T,
    /// Nodes that must hear of it; empty when nothing changed.
    pub(crate) tell: Vec<NodeId>,
}

impl Books {
    /// Takes up what was kept; tables are in force when this returns.
    pub(crate) fn restore(core: Arc<Core>, local: Arc<Local>) -> Result<Self, NodeError> {
        let mut owned = BTreeMap::new();
        for row in core.store.networks()? {
            match OwnerBook::restore(core.config.identity.clone(), &row.book) {
                Ok(book) => {
                    local.set(Arc::new(book.roster().clone()));
                    owned.insert(row.id, Arc::new(Owned { book: Mutex::new(book) }));
                }
                Err(error) => tracing::error!(network = %row.id, %error, "left alone"),
            }
        }
        Ok(Self { core, local, owned: RwLock::new(owned) })
    }

    pub(crate) fn get(&self, id: NetworkId) -> Option<Arc<Owned>> {
        self.owned.read().get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Owned>> {
        self.owned.read().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.owned.read().len()
    }

    pub(crate) fn create(&self, spec: gvpn_roster::NetworkSpec) -> Result<Arc<Owned>, NodeError> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|e| NodeError::internal(format!("no randomness from the system: {e}")))?;
        let book = OwnerBook::create(self.core.config.identity.clone(), salt, spec)?;
        let id = book.network();
        self.core.store.put_network(id, &book.save())?;
        self.local.set(Arc::new(book.roster().clone()));
        let owned = Arc::new(Owned { book: Mutex::new(book) });
        self.owned.write().insert(id, owned.clone());
        Ok(owned)
    }

    /// Makes a change: all of it or, on an error, nothing. It is kept before it is in force.
    pub(crate) fn change<T>(
        &self,
        owned: &Owned,
        change: impl FnOnce(&mut OwnerBook) -> Result<T, BookError>,
    ) -> Result<Changed<T>, NodeError> {
        let mut book = owned.book.lock();
        let mut draft = book.clone();
        let value = change(&mut draft)?;
        if draft.epoch() == book.epoch() {
            return Ok(Changed { value, tell: Vec::new() });
        }
        let id = draft.network();
        let before = self.others(&book);
        let after = self.others(&draft);
        for gone in before.iter().filter(|node| !after.contains(node)) {
            self.core.store.put_farewell(id, *gone)?;
        }
        self.core.store.put_network(id, &draft.save())?;
        *book = draft;
        self.local.set(Arc::new(book.roster().clone()));
        let mut tell = after;
        tell.extend(before);
        tell.sort_unstable();
        tell.dedup();
        Ok(Changed { value, tell })
    }

    /// Removes a network. Returns the nodes that must hear of it.
    pub(crate) fn remove(&self, id: NetworkId) -> Result<Vec<NodeId>, NodeError> {
        let Some(owned) = self.get(id) else { return Ok(Vec::new()) };
        let book = owned.book.lock();
        let members = self.others(&book);
        self.core.store.remove_network(id, &members)?;
        self.owned.write().remove(&id);
        self.local.remove(id);
        Ok(members)
    }

    /// What `node` needs to follow up, when it is in the network; with the epoch and hash that it
    /// will be at then.
    pub(crate) fn update_for(
        &self,
        network: NetworkId,
        node: NodeId,
        has: Option<u64>,
    ) -> Option<(Update, u64, String)> {
        let owned = self.get(network)?;
        let book = owned.book.lock();
        if !book.roster().has_node(node) {
            return None;
        }
        let delta = has.and_then(|epoch| book.delta_since(epoch));
        let update = match delta {
            Some(delta) => Update::Delta(delta),
            None => Update::Snapshot(book.snapshot()),
        };
        Some((update, book.epoch(), hex::encode(book.hash().as_bytes())))
    }

    /// A member is ahead of the book, which must come from an old copy of the state: go beyond.
    pub(crate) fn overtake(&self, network: NetworkId, epoch: u64) -> Result<(), NodeError> {
        let Some(owned) = self.get(network) else { return Ok(()) };
        let mut book = owned.book.lock();
        if epoch < book.epoch() {
            return Ok(());
        }
        tracing::warn!(%network, epoch, own = book.epoch(), "a member is ahead of the owner");
        book.overtake(epoch);
        self.core.store.put_network(network, &book.save())?;
        self.local.set(Arc::new(book.roster().clone()));
        Ok(())
    }

    fn others(&self, book: &OwnerBook) -> Vec<NodeId> {
        book.roster().nodes().into_iter().filter(|node| *node != self.core.me).collect()
    }
}

impl From<BookError> for NodeError {
    fn from(error: BookError) -> Self {
        use BookError as B;
        match error {
            B::Taken { .. }
            | B::NameTaken(..)
            | B::Overlap(..)
            | B::PrefixInUse(..)
            | B::LastPrefix(_)
            | B::Full(_)
            | B::OwnersOwn(_) => Self::conflict(error),
            B::UnknownMember(_) | B::UnknownNode(_) | B::UnknownPrefix(_) => Self::not_found(error),
            _ => Self::invalid(error),
        }
    }
}
