//! Changes as Golem's Net API asks for them: repeating one is no error.

use std::net::IpAddr;

use gvpn_model::{MemberId, NodeId};

use super::{OWNER_MEMBER, OwnerBook};
use crate::{BookError, MemberEdit, MemberSpec};

impl OwnerBook {
    /// Gives the owner an address. The first that it asks for in a prefix takes the place of the one
    /// that it was given there without asking. Returns whether anything changed.
    ///
    /// # Errors
    /// [`BookError`]; nothing was changed.
    pub fn add_owner_address(&mut self, ip: IpAddr) -> Result<bool, BookError> {
        if self.owner_member().ips.contains(&ip) {
            self.automatic.retain(|given| *given != ip);
            return Ok(false);
        }
        let subnet = self.roster.subnet_of(ip).map(|s| s.prefix);
        let replaced = |given: &&IpAddr| subnet.is_some_and(|prefix| prefix.contains(*given));
        let remove_ips: Vec<_> = self.automatic.iter().filter(replaced).copied().collect();
        let add_ips = vec![ip];
        self.edit_member(OWNER_MEMBER, MemberEdit { add_ips, remove_ips, ..Default::default() })
    }

    /// Makes `node` have `ip`: the owner by another address of its own, any other node by a new
    /// member, since each may be another activity's. Repeating it is no error. Returns the member
    /// and whether anything changed.
    ///
    /// # Errors
    /// [`BookError`], [`BookError::Taken`] when another node has the address; nothing was changed.
    pub fn add_node(&mut self, node: NodeId, ip: IpAddr) -> Result<(MemberId, bool), BookError> {
        if node == self.roster.owner {
            return self.add_owner_address(ip).map(|changed| (OWNER_MEMBER, changed));
        }
        if let Some(holder) = self.holder(ip).filter(|holder| holder.node == node) {
            return Ok((holder.id, false));
        }
        self.add_member(MemberSpec::new(node, vec![ip])).map(|id| (id, true))
    }

    /// Removes every member on `node`. The owner's own member stays: the owner cannot leave.
    ///
    /// # Errors
    /// [`BookError::UnknownNode`], [`BookError::OwnersOwn`].
    pub fn remove_node(&mut self, node: NodeId) -> Result<(), BookError> {
        if node == self.roster.owner {
            return Err(BookError::OwnersOwn(OWNER_MEMBER));
        }
        let gone = self.ids_on(node);
        if gone.is_empty() {
            return Err(BookError::UnknownNode(node));
        }
        self.remove_members(&gone);
        Ok(())
    }
}
