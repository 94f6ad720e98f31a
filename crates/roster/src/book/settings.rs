//! Changes of the network as a whole.

use std::net::IpAddr;

use gvpn_model::{MemberId, addressing};
use ipnet::IpNet;

use super::{OWNER_MEMBER, OwnerBook, room_for_subnets};
use crate::{
    BookError, Change, MAX_ROUTES, MAX_RULES, Policy, Roster, Route, RuleId, Selector, Settings,
    SettingsEdit, Subnet, check_name,
};

impl OwnerBook {
    /// Changes the settings. Returns whether anything differs from before.
    ///
    /// # Errors
    /// [`BookError`]; nothing was changed.
    pub fn edit_settings(&mut self, edit: SettingsEdit) -> Result<bool, BookError> {
        let mut new = self.roster.settings.clone();
        if let Some(name) = edit.name {
            new.name = name.as_deref().map(check_name).transpose()?;
        }
        if let Some(mtu) = edit.mtu {
            new.mtu = check_mtu(mtu)?;
        }
        if let Some(routes) = edit.routes {
            new.routes = check_routes(routes, &new.subnets, &self.roster)?;
        }
        if let Some(hosts) = edit.hosts {
            let lower = |(name, ips): (String, Vec<IpAddr>)| Ok((check_host_name(&name)?, ips));
            new.hosts = hosts.into_iter().map(lower).collect::<Result<_, BookError>>()?;
        }
        if let Some(policy) = edit.policy {
            new.policy = check_policy(policy, &self.roster)?;
        }
        Ok(self.set(new))
    }

    /// Adds a prefix; members get no address in it until they are given one. The gateway is the
    /// first host, unless another is named. A prefix that is there already with that gateway is no change.
    ///
    /// # Errors
    /// [`BookError`]; nothing was changed.
    pub fn add_subnet(
        &mut self,
        prefix: IpNet,
        gateway: Option<IpAddr>,
    ) -> Result<bool, BookError> {
        let subnet = check_subnet(prefix, gateway)?;
        let mut new = self.roster.settings.clone();
        if new.subnets.contains(&subnet) {
            return Ok(false);
        }
        no_overlap(&new.subnets, prefix)?;
        new.subnets.push(subnet);
        room_for_subnets(new.subnets.len())?;
        if let Some(route) = new.routes.iter().find(|r| overlap(r.destination, prefix)) {
            return Err(BookError::Overlap(prefix, route.destination));
        }
        Ok(self.set(new))
    }

    /// Removes a prefix in which no member has an address any more. An address that the owner was
    /// given without asking does not hold it.
    ///
    /// # Errors
    /// [`BookError`]; nothing was changed.
    pub fn remove_subnet(&mut self, prefix: IpNet) -> Result<bool, BookError> {
        let mut new = self.roster.settings.clone();
        let before = new.subnets.len();
        new.subnets.retain(|s| s.prefix != prefix);
        if new.subnets.len() == before {
            return Err(BookError::UnknownPrefix(prefix));
        }
        if new.subnets.is_empty() {
            return Err(BookError::LastPrefix(prefix));
        }
        let mut me = self.owner_member().clone();
        me.ips.retain(|ip| !(prefix.contains(ip) && self.automatic.contains(ip)));
        let holds = |ips: &[IpAddr]| ips.iter().any(|ip| prefix.contains(ip));
        let users = self
            .roster
            .members
            .iter()
            .filter(|m| if m.id == OWNER_MEMBER { holds(&me.ips) } else { holds(&m.ips) });
        let users = users.count();
        if users > 0 {
            return Err(BookError::PrefixInUse(prefix, users));
        }
        if me.ips.is_empty() {
            return Err(BookError::NoAddress);
        }
        let mut changes = vec![Change::Settings(Box::new(new))];
        if me != *self.owner_member() {
            changes.push(Change::Member(me));
        }
        self.automatic.retain(|ip| !prefix.contains(ip));
        self.cursors.remove(&prefix);
        Ok(self.commit(changes))
    }

    /// Gives a prefix another gateway.
    ///
    /// # Errors
    /// [`BookError`]; nothing was changed.
    pub fn set_gateway(&mut self, prefix: IpNet, gateway: IpAddr) -> Result<bool, BookError> {
        let subnet = check_subnet(prefix, Some(gateway))?;
        let mut new = self.roster.settings.clone();
        match new.subnets.iter_mut().find(|s| s.prefix == prefix) {
            Some(found) => *found = subnet,
            None => return Err(BookError::UnknownPrefix(prefix)),
        }
        Ok(self.set(new))
    }

    /// Settings without what names member `id`.
    pub(super) fn settings_without(&self, gone: &[MemberId]) -> Option<Settings> {
        let old = &self.roster.settings;
        if !old.routes.iter().any(|r| gone.contains(&r.via)) {
            return None;
        }
        let mut new = old.clone();
        new.routes.retain(|r| !gone.contains(&r.via));
        Some(new)
    }

    fn set(&mut self, new: Settings) -> bool {
        if new == self.roster.settings {
            return false;
        }
        self.commit(vec![Change::Settings(Box::new(new))])
    }
}

pub(super) fn check_subnets(wanted: &[(IpNet, Option<IpAddr>)]) -> Result<Vec<Subnet>, BookError> {
    let mut subnets = Vec::new();
    room_for_subnets(wanted.len())?;
    for (prefix, gateway) in wanted {
        no_overlap(&subnets, *prefix)?;
        subnets.push(check_subnet(*prefix, *gateway)?);
    }
    if subnets.is_empty() {
        return Err(BookError::NoAddress);
    }
    Ok(subnets)
}

pub(super) fn check_mtu(mtu: u16) -> Result<u16, BookError> {
    if (1280..=9000).contains(&mtu) { Ok(mtu) } else { Err(BookError::Mtu(mtu)) }
}

fn check_subnet(prefix: IpNet, gateway: Option<IpAddr>) -> Result<Subnet, BookError> {
    let prefix = addressing::parse_prefix(&prefix.to_string(), None)?;
    let gateway = gateway.unwrap_or_else(|| addressing::first_host(prefix));
    addressing::check_host(gateway, prefix)?;
    Ok(Subnet { prefix, gateway })
}

fn no_overlap(subnets: &[Subnet], prefix: IpNet) -> Result<(), BookError> {
    match subnets.iter().find(|s| overlap(s.prefix, prefix)) {
        Some(other) => Err(BookError::Overlap(prefix, other.prefix)),
        None => Ok(()),
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn check_routes(
    routes: Vec<Route>,
    subnets: &[Subnet],
    roster: &Roster,
) -> Result<Vec<Route>, BookError> {
    if routes.len() > MAX_ROUTES {
        return Err(BookError::TooMany { what: "routes", limit: MAX_ROUTES });
    }
    for (at, route) in routes.iter().enumerate() {
        let refuse = |why| Err(BookError::Route(route.destination, why));
        if route.destination != route.destination.trunc() {
            return refuse("its host bits are not zero");
        }
        if roster.member(route.via).is_none() {
            return refuse("no member has the id that it goes through");
        }
        // A wider destination (a default route, say) is fine: the prefix is more specific.
        if subnets.iter().any(|s| s.prefix.contains(&route.destination)) {
            return refuse("it lies inside the network, where members are reached directly");
        }
        if routes[..at].iter().any(|other| other.destination == route.destination) {
            return refuse("it is there twice");
        }
    }
    Ok(routes)
}

fn check_policy(mut policy: Policy, roster: &Roster) -> Result<Policy, BookError> {
    if policy.rules.len() > MAX_RULES {
        return Err(BookError::TooMany { what: "rules", limit: MAX_RULES });
    }
    number_rules(&mut policy);
    for (at, rule) in policy.rules.iter().enumerate() {
        let refuse = |why: String| Err(BookError::Rule(rule.id, why));
        if policy.rules[..at].iter().any(|other| other.id == rule.id) {
            return refuse("another rule has the same id".into());
        }
        for selector in [&rule.from, &rule.to] {
            if !names_somebody(selector, roster) {
                return refuse(format!("{selector:?} is nobody in this network"));
            }
        }
        if rule.ports.iter().any(|p| p.first > p.last) {
            return refuse("a port range ends before it starts".into());
        }
        if !rule.ports.is_empty() && !rule.protocol.has_ports() {
            return refuse("ports need the protocol tcp or udp".into());
        }
    }
    Ok(policy)
}

/// Gives rules without an id (zero) the next free ones.
fn number_rules(policy: &mut Policy) {
    let mut next: RuleId = policy.rules.iter().map(|r| r.id).max().unwrap_or(0);
    for rule in policy.rules.iter_mut().filter(|r| r.id == 0) {
        next = next.saturating_add(1);
        rule.id = next;
    }
}

fn names_somebody(selector: &Selector, roster: &Roster) -> bool {
    match selector {
        Selector::Any => true,
        Selector::Member(id) => roster.member(*id).is_some(),
        Selector::Group(group) => roster.members.iter().any(|m| m.groups.contains(group)),
        Selector::Prefix(prefix) => {
            let inside = |s: &Subnet| overlap(s.prefix, *prefix);
            roster.settings.subnets.iter().any(inside)
                || roster.settings.routes.iter().any(|r| overlap(r.destination, *prefix))
        }
    }
}

/// A name in `hosts`: labels with dots between.
fn check_host_name(name: &str) -> Result<String, BookError> {
    let labels = name.trim_end_matches('.').split('.').map(check_name);
    let labels = labels.collect::<Result<Vec<_>, _>>().map_err(|_| BookError::Name(name.into()))?;
    let joined = labels.join(".");
    if joined.len() <= 253 { Ok(joined) } else { Err(BookError::Name(name.into())) }
}
