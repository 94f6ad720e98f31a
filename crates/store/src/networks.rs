//! Owned networks, memberships, and farewells that are still to be said.

use chrono::Utc;
use gvpn_model::{NetworkId, NodeId};
use rusqlite::params;

use crate::{Store, StoreError};

/// A network that this node owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRow {
    /// Its id.
    pub id: NetworkId,
    /// The owner's book, saved.
    pub book: Vec<u8>,
}

/// Another owner's network that this node is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipRow {
    /// The network.
    pub network: NetworkId,
    /// Its owner.
    pub owner: NodeId,
    /// The last roster, signed.
    pub snapshot: Vec<u8>,
}

impl Store {
    /// Keeps an owned network, new or changed.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn put_network(&self, id: NetworkId, book: &[u8]) -> Result<(), StoreError> {
        self.lock().execute(
            "INSERT INTO network (id, book, created) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET book = excluded.book",
            params![id.to_string(), book, Utc::now().to_rfc3339()],
        )?;
        Ok(())
    }

    /// Every owned network, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn networks(&self) -> Result<Vec<NetworkRow>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT id, book FROM network ORDER BY created, id")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (id, book) = row?;
            Ok(NetworkRow { id: parsed("network", &id)?, book })
        })
        .collect()
    }

    /// Forgets an owned network; these nodes have yet to hear that it is gone.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn remove_network(&self, id: NetworkId, farewells: &[NodeId]) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let step = connection.transaction()?;
        step.execute("DELETE FROM network WHERE id = ?1", [id.to_string()])?;
        for node in farewells {
            step.execute(
                "INSERT OR IGNORE INTO farewell (network, node) VALUES (?1, ?2)",
                [id.to_string(), node.to_string()],
            )?;
        }
        Ok(step.commit()?)
    }

    /// Notes that a node has yet to hear that it left a network.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn put_farewell(&self, network: NetworkId, node: NodeId) -> Result<(), StoreError> {
        self.lock().execute(
            "INSERT OR IGNORE INTO farewell (network, node) VALUES (?1, ?2)",
            [network.to_string(), node.to_string()],
        )?;
        Ok(())
    }

    /// The node has heard it, or is back in the network.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn remove_farewell(&self, network: NetworkId, node: NodeId) -> Result<(), StoreError> {
        self.lock().execute(
            "DELETE FROM farewell WHERE network = ?1 AND node = ?2",
            [network.to_string(), node.to_string()],
        )?;
        Ok(())
    }

    /// Every farewell that is still to be said.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn farewells(&self) -> Result<Vec<(NetworkId, NodeId)>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT network, node FROM farewell")?;
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (network, node): (String, String) = row?;
            Ok((parsed("network", &network)?, parsed("node", &node)?))
        })
        .collect()
    }

    /// Keeps a membership, new or changed.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn put_membership(&self, row: &MembershipRow) -> Result<(), StoreError> {
        self.lock().execute(
            "INSERT INTO membership (network, owner, snapshot) VALUES (?1, ?2, ?3)
             ON CONFLICT (network) DO UPDATE SET snapshot = excluded.snapshot",
            params![row.network.to_string(), row.owner.to_string(), row.snapshot],
        )?;
        Ok(())
    }

    /// Every membership.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn memberships(&self) -> Result<Vec<MembershipRow>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT network, owner, snapshot FROM membership")?;
        let rows =
            query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
        rows.map(|row| {
            let (network, owner, snapshot): (String, String, Vec<u8>) = row?;
            let network = parsed("network", &network)?;
            Ok(MembershipRow { network, owner: parsed("node", &owner)?, snapshot })
        })
        .collect()
    }

    /// Forgets a membership.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn remove_membership(&self, network: NetworkId) -> Result<(), StoreError> {
        self.lock().execute("DELETE FROM membership WHERE network = ?1", [network.to_string()])?;
        Ok(())
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    what: &str,
    text: &str,
) -> Result<T, StoreError> {
    text.parse().map_err(|reason: T::Err| StoreError::Damaged {
        what: what.to_owned(),
        id: text.to_owned(),
        reason: reason.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_memberships_and_farewells_survive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let (mine, theirs) = (NetworkId::random(), NetworkId::random());
        let (a, b) = (NodeId::from_bytes([1; 20]), NodeId::from_bytes([2; 20]));
        let row = MembershipRow { network: theirs, owner: a, snapshot: vec![7] };
        {
            let store = Store::open(&path).unwrap();
            store.put_network(mine, b"one").unwrap();
            store.put_network(mine, b"two").unwrap();
            store.put_membership(&row).unwrap();
            // No orderly end: the next opening sees it all the same.
            std::mem::forget(store);
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.networks().unwrap(), [NetworkRow { id: mine, book: b"two".to_vec() }]);
        assert_eq!(store.memberships().unwrap(), [row]);
        store.remove_network(mine, &[a, b]).unwrap();
        store.put_farewell(mine, a).unwrap();
        assert_eq!(store.farewells().unwrap(), [(mine, a), (mine, b)]);
        store.remove_farewell(mine, a).unwrap();
        store.remove_membership(theirs).unwrap();
        assert_eq!(store.farewells().unwrap(), [(mine, b)]);
        assert!(store.networks().unwrap().is_empty() && store.memberships().unwrap().is_empty());
    }
}
