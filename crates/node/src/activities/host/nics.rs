//! Payloads' vNICs: attached by the roster's leave, and kept as the roster says.

use std::sync::Arc;

use gvpn_dataplane::{PortId, PortSpec};
use gvpn_exeunit::ExeUnit;
use gvpn_model::{MemberId, NetworkId};
use gvpn_roster::{Member, Roster};

use super::Host;
use crate::{
    NodeError, Usage,
    activities::{
        hosted::{Hosted, Joined},
        info::Traffic,
        resolve,
    },
    networks::network_config,
    nic::nic as port_nic,
};

impl Host {
    /// Attaches a payload's vNIC, if the roster has the member on this node and nobody else is it.
    pub(super) fn attach(
        &self,
        hosted: &Arc<Hosted>,
        network: NetworkId,
        member: MemberId,
        nic: gvpn_vnic::Nic,
    ) -> Result<(), NodeError> {
        let roster = resolve::roster(self.networks.local(), network, self.core.me)?;
        let row = roster.member(member).filter(|row| row.node == self.core.me);
        let row = row.ok_or_else(|| not_in(network))?;
        let ip = *row.ips.first().ok_or_else(|| not_in(network))?;
        resolve::member_at(&roster, ip, self.applicant(hosted))?;
        self.check_free(hosted, network, row)?;
        let mut joined = hosted.joined.lock();
        let entry = joined.get_mut(&network).ok_or_else(|| not_in(network))?;
        if let Some(old) = entry.port.take() {
            self.close(hosted, old);
        }
        let spec = PortSpec { network, member, nic: port_nic(nic) };
        entry.port = Some(self.core.dataplane().attach(spec)?);
        entry.member = Some(member);
        entry.live = true;
        Ok(())
    }

    /// A payload's vNIC is about to go.
    pub(super) fn detach(&self, hosted: &Hosted, network: NetworkId) {
        if let Some(entry) = hosted.joined.lock().get_mut(&network)
            && let Some(port) = entry.port.take()
        {
            self.close(hosted, port);
        }
    }

    pub(super) fn detach_all(&self, hosted: &Hosted) {
        let joined = std::mem::take(&mut *hosted.joined.lock());
        for port in joined.into_values().filter_map(|entry| entry.port) {
            self.close(hosted, port);
        }
    }

    /// Detaches a vNIC; what it has carried is remembered.
    fn close(&self, hosted: &Hosted, port: PortId) {
        let mut carried = hosted.carried.lock();
        *carried += self.traffic(&[port]);
        self.core.dataplane().detach(port);
    }

    fn traffic(&self, ports: &[PortId]) -> Traffic {
        let mut traffic = Traffic::default();
        for port in self.core.dataplane().stats().ports {
            if ports.contains(&port.port) {
                traffic += Traffic { sent: port.bytes_in, received: port.bytes_out };
            }
        }
        traffic
    }

    /// What an activity has used, measured now.
    pub(super) async fn usage_of(&self, hosted: &Hosted) -> Usage {
        let used = hosted.measure().await;
        let ports: Vec<PortId> =
            hosted.joined.lock().values().filter_map(|entry| entry.port).collect();
        let mut traffic = *hosted.carried.lock();
        traffic += self.traffic(&ports);
        Usage::new(used, traffic)
    }

    /// Brings payloads up to the rosters: of one network, or of all.
    pub(super) fn reconcile(&self, network: Option<NetworkId>) {
        let all: Vec<_> = self.all.lock().values().cloned().collect();
        for hosted in all {
            let networks: Vec<_> = match network {
                Some(network) => vec![network],
                None => hosted.joined.lock().keys().copied().collect(),
            };
            for network in networks {
                self.reconcile_one(&hosted, network);
            }
        }
    }

    /// Brings one payload up to one network's roster. Nothing is done before its vNIC was there:
    /// until then DEPLOY is at work.
    pub(super) fn reconcile_one(&self, hosted: &Arc<Hosted>, network: NetworkId) {
        let Some(unit) = hosted.unit() else { return };
        let Some(entry) = hosted.joined.lock().get(&network).filter(|e| e.live).cloned() else {
            return;
        };
        let roster = self.networks.local().get(network);
        let member = roster.as_deref().and_then(|roster| self.own_member(hosted, roster, &entry));
        let (Some(roster), Some(member)) = (roster.as_deref(), member) else {
            self.leave(hosted, &unit, network);
            return;
        };
        let config = network_config(roster, member);
        let mut joined = hosted.joined.lock();
        let Some(entry) = joined.get_mut(&network) else { return };
        if !member.ips.contains(&entry.ip)
            && let Some(ip) = member.ips.first()
        {
            entry.ip = *ip;
        }
        entry.member = Some(member.id);
        if entry.told.as_ref() != Some(&config) {
            entry.told = Some(config.clone());
            unit.reconfigure(config);
        }
    }

    /// Takes a payload out of a network; it may come back when its address does.
    pub(super) fn leave(&self, hosted: &Hosted, unit: &ExeUnit, network: NetworkId) {
        let mut joined = hosted.joined.lock();
        let Some(entry) = joined.get_mut(&network) else { return };
        if let Some(port) = entry.port.take() {
            self.close(hosted, port);
        }
        entry.member = None;
        if entry.told.take().is_some() {
            unit.remove_network(network);
        }
    }

    /// The member that a payload is, or can be again.
    fn own_member<'r>(
        &self,
        hosted: &Arc<Hosted>,
        roster: &'r Roster,
        entry: &Joined,
    ) -> Option<&'r Member> {
        let stays = entry.member.and_then(|id| roster.member(id));
        let stays = stays.filter(|member| member.node == self.core.me);
        let found = match stays {
            Some(member) => member,
            None => resolve::member_at(roster, entry.ip, self.applicant(hosted)).ok()?,
        };
        self.check_free(hosted, roster.network, found).ok().map(|()| found)
    }

    /// A member is one activity's only.
    fn check_free(
        &self,
        hosted: &Arc<Hosted>,
        network: NetworkId,
        member: &Member,
    ) -> Result<(), NodeError> {
        let all: Vec<_> = self.all.lock().values().cloned().collect();
        for other in all.iter().filter(|other| !Arc::ptr_eq(other, hosted)) {
            let holds = other
                .joined
                .lock()
                .get(&network)
                .is_some_and(|entry| entry.port.is_some() && entry.member == Some(member.id));
            if holds {
                let ip = member.ips.first().map(ToString::to_string).unwrap_or_default();
                return Err(NodeError::conflict(format!(
                    "address {ip} in network {network} is in use by activity {}: add the node with \
                     another address for this one",
                    other.info().id
                )));
            }
        }
        Ok(())
    }
}

fn not_in(network: NetworkId) -> NodeError {
    NodeError::invalid(format!("this activity is not in network {network}"))
}
