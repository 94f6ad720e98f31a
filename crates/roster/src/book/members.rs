//! Changes of members.

use std::net::IpAddr;

use gvpn_model::{MemberId, NodeId, addressing};

use super::{OWNER_MEMBER, OwnerBook, prefixes};
use crate::{
    BookError, Change, MAX_ADDRESSES, MAX_MEMBERS, Member, MemberEdit, MemberSpec, check_name,
};

/// The most groups or services that one member may have.
const MAX_LABELS: usize = 64;

impl OwnerBook {
    /// Adds a member.
    ///
    /// # Errors
    /// [`BookError`]; nothing was changed.
    pub fn add_member(&mut self, mut spec: MemberSpec) -> Result<MemberId, BookError> {
        if self.roster.members.len() >= MAX_MEMBERS {
            return Err(BookError::TooMany { what: "members", limit: MAX_MEMBERS });
        }
        if spec.ips.is_empty() {
            spec.ips = self.free_addresses()?;
        }
        let id = MemberId(self.next_member);
        let member = self.checked(Member::from_spec(id, spec))?;
        self.next_member += 1;
        self.commit(vec![Change::Member(member)]);
        Ok(id)
    }

    /// Changes a member. Returns whether anything differs from before.
    ///
    /// # Errors
    /// [`BookError`]; nothing was changed.
    pub fn edit_member(&mut self, id: MemberId, edit: MemberEdit) -> Result<bool, BookError> {
        let old = self.roster.member(id).ok_or(BookError::UnknownMember(id))?;
        if id == OWNER_MEMBER && edit.node.is_some_and(|node| node != old.node) {
            return Err(BookError::OwnersOwn(id));
        }
        let new = self.checked(edited(old.clone(), edit))?;
        if new == *old {
            return Ok(false);
        }
        if id == OWNER_MEMBER {
            self.automatic.retain(|ip| new.ips.contains(ip));
        }
        Ok(self.commit(vec![Change::Member(new)]))
    }

    /// Removes a member, and the routes through it.
    ///
    /// # Errors
    /// [`BookError::UnknownMember`], [`BookError::OwnersOwn`].
    pub fn remove_member(&mut self, id: MemberId) -> Result<(), BookError> {
        if self.roster.member(id).is_none() {
            return Err(BookError::UnknownMember(id));
        }
        if id == OWNER_MEMBER {
            return Err(BookError::OwnersOwn(id));
        }
        self.remove_members(&[id]);
        Ok(())
    }

    pub(super) fn remove_members(&mut self, gone: &[MemberId]) -> bool {
        let settings = self.settings_without(gone).map(|s| Change::Settings(Box::new(s)));
        let removed = gone.iter().map(|id| Change::Removed(*id));
        self.commit(removed.chain(settings).collect())
    }

    /// Whoever has `address`.
    pub fn holder(&self, address: IpAddr) -> Option<&Member> {
        self.roster.member(*self.addresses.get(&address)?)
    }

    /// Checks everything about a member that is to be, and brings it into its usual form.
    fn checked(&self, mut member: Member) -> Result<Member, BookError> {
        if member.ips.is_empty() {
            return Err(BookError::NoAddress);
        }
        if member.ips.len() > MAX_ADDRESSES {
            return Err(BookError::TooMany {
                what: "addresses of one member",
                limit: MAX_ADDRESSES,
            });
        }
        for ip in &member.ips {
            self.check_free(*ip, member.id)?;
        }
        if let Some(name) = &member.name {
            let name = check_name(name)?;
            if let Some(other) = self.names.get(&name).filter(|other| **other != member.id) {
                return Err(BookError::NameTaken(name, *other));
            }
            member.name = Some(name);
        }
        if member.groups.len() > MAX_LABELS || member.services.len() > MAX_LABELS {
            return Err(BookError::TooMany { what: "groups or services", limit: MAX_LABELS });
        }
        for group in &mut member.groups {
            *group = check_name(group)?;
        }
        member.groups.sort_unstable();
        member.groups.dedup();
        for service in &mut member.services {
            service.name = check_name(&service.name)?;
        }
        Ok(member)
    }

    /// Checks that `ip` can be `member`'s.
    fn check_free(&self, ip: IpAddr, member: MemberId) -> Result<(), BookError> {
        let subnets = &self.roster.settings.subnets;
        let subnet = self.roster.subnet_of(ip);
        let subnet = subnet.ok_or_else(|| BookError::Outside(ip, prefixes(subnets)))?;
        addressing::check_host(ip, subnet.prefix)?;
        match self.holder(ip) {
            Some(holder) if holder.id != member => {
                Err(BookError::Taken { ip, member: holder.id, node: holder.node })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn ids_on(&self, node: NodeId) -> Vec<MemberId> {
        self.roster.members_of(node).map(|m| m.id).collect()
    }
}

impl Member {
    pub(crate) fn from_spec(id: MemberId, spec: MemberSpec) -> Self {
        let MemberSpec { node, activity, ips, name, groups, limit, services } = spec;
        Self {
            id,
            node,
            activity,
            ips: unique(ips),
            name,
            groups,
            limit,
            quarantined: false,
            services,
        }
    }
}

fn edited(mut member: Member, edit: MemberEdit) -> Member {
    if let Some(ips) = edit.ips {
        member.ips = ips;
    }
    member.ips.retain(|ip| !edit.remove_ips.contains(ip));
    member.ips.extend(edit.add_ips);
    member.ips = unique(member.ips);
    if let Some(node) = edit.node.filter(|node| *node != member.node) {
        member.node = node;
        member.activity = None;
    }
    if let Some(activity) = edit.activity {
        member.activity = activity;
    }
    if let Some(name) = edit.name {
        member.name = name;
    }
    if let Some(groups) = edit.groups {
        member.groups = groups;
    }
    if let Some(limit) = edit.limit {
        member.limit = limit;
    }
    if let Some(quarantined) = edit.quarantined {
        member.quarantined = quarantined;
    }
    if let Some(services) = edit.services {
        member.services = services;
    }
    member
}

/// The addresses in their order, each once.
fn unique(ips: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut out = Vec::with_capacity(ips.len());
    for ip in ips {
        if !out.contains(&ip) {
            out.push(ip);
        }
    }
    out
}
