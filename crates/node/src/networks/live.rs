//! Changes of a running network beyond what Golem's Net API knows.

use std::{net::IpAddr, sync::Arc, time::Duration};

use gvpn_model::{MemberId, NetworkId, NodeId, addressing};
use gvpn_roster::{
    BookError, Member, MemberSpec, OwnerBook, Policy, Rule, RuleId, SettingsEdit, generate_ula,
};
use gvpn_switch::trace::{Question, Step};
use ipnet::IpNet;

use super::{NetworkInfo, Networks};
use crate::{
    NodeError,
    core::Core,
    proto::{self, TraceReply, TraceRequest},
};

impl Networks {
    /// Adds a prefix: `prefix` in CIDR form, or a fresh unique local IPv6 prefix when there is none.
    ///
    /// # Errors
    /// `Invalid` for what is no prefix, `Conflict` for one that overlaps.
    pub async fn add_prefix(
        &self,
        id: NetworkId,
        prefix: Option<&str>,
        gateway: Option<IpAddr>,
    ) -> Result<IpNet, NodeError> {
        let prefix = match prefix {
            Some(text) => addressing::parse_prefix(text, None)?,
            None => fresh_prefix()?,
        };
        self.change(id, |book| book.add_subnet(prefix, gateway)).await?;
        Ok(prefix)
    }

    /// Removes a prefix in which no member has an address any more.
    ///
    /// # Errors
    /// `NotFound` for an unknown prefix, `Conflict` for one that is in use.
    pub async fn remove_prefix(&self, id: NetworkId, prefix: IpNet) -> Result<(), NodeError> {
        self.change(id, |book| book.remove_subnet(prefix)).await.map(drop)
    }

    /// Gives a prefix another gateway.
    ///
    /// # Errors
    /// `NotFound` for an unknown prefix, `Invalid` for an address that is no host's in it.
    pub async fn set_gateway(
        &self,
        id: NetworkId,
        prefix: IpNet,
        gateway: IpAddr,
    ) -> Result<(), NodeError> {
        self.change(id, |book| book.set_gateway(prefix, gateway)).await.map(drop)
    }

    /// Adds a member whose addresses follow from its node and name, the same whenever they are free.
    ///
    /// # Errors
    /// As [`add_member`](Self::add_member).
    pub async fn add_derived_member(
        &self,
        id: NetworkId,
        mut spec: MemberSpec,
    ) -> Result<Member, NodeError> {
        let member = self.change(id, |book| {
            let prefixes: Vec<_> =
                book.roster().settings.subnets.iter().map(|s| s.prefix).collect();
            let name = spec.name.clone().unwrap_or_default();
            let derive = |prefix| book.derived_address(prefix, spec.node, &name);
            spec.ips = prefixes.into_iter().map(derive).collect::<Result<_, _>>()?;
            book.add_member(spec)
        });
        let member = member.await?;
        self.member(id, member)
    }

    /// The member that `text` means: its number, one of its addresses, or its name.
    ///
    /// # Errors
    /// `NotFound` when it means none.
    pub fn find_member(&self, id: NetworkId, text: &str) -> Result<Member, NodeError> {
        let roster = self.roster(id)?;
        let by_number = || text.parse().ok().and_then(|n| roster.member(MemberId(n)));
        let by_address = || text.parse().ok().and_then(|ip| roster.holder(ip));
        let by_name = || {
            let named = |m: &&Member| m.name.as_deref() == Some(&*text.to_ascii_lowercase());
            roster.members.iter().find(named)
        };
        let found = by_number().or_else(by_address).or_else(by_name);
        found.cloned().ok_or_else(|| {
            NodeError::not_found(format!(
                "network {id} has no member with the number, address or name `{text}`"
            ))
        })
    }

    /// Adds a rule, before the one at place `at` or after all.
    ///
    /// # Errors
    /// `Invalid` for a rule that names nobody or makes no sense.
    pub async fn add_rule(
        &self,
        id: NetworkId,
        mut rule: Rule,
        at: Option<usize>,
    ) -> Result<Rule, NodeError> {
        self.change(id, |book| {
            let mut policy = book.roster().settings.policy.clone();
            if rule.id == 0 {
                rule.id = policy.rules.iter().map(|r| r.id).max().unwrap_or(0).saturating_add(1);
            }
            let at = at.unwrap_or(policy.rules.len()).min(policy.rules.len());
            policy.rules.insert(at, rule.clone());
            set_policy(book, policy)
        })
        .await?;
        Ok(rule)
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// `NotFound` when there is none with this id.
    pub async fn remove_rule(&self, id: NetworkId, rule: RuleId) -> Result<(), NodeError> {
        let known = self.roster(id)?.settings.policy.rules.iter().any(|r| r.id == rule);
        if !known {
            return Err(NodeError::not_found(format!("network {id} has no rule {rule}")));
        }
        let remove = |book: &mut OwnerBook| {
            let mut policy = book.roster().settings.policy.clone();
            policy.rules.retain(|r| r.id != rule);
            set_policy(book, policy)
        };
        self.change(id, remove).await
    }

    /// What would happen to a packet, and why: asked where it would start, if that node answers,
    /// else said from here.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn trace(&self, id: NetworkId, question: Question) -> Result<TraceReply, NodeError> {
        let roster = self.roster(id)?;
        let source = roster.holder(question.source).map_or(self.inner.me, |m| m.node);
        if source != self.inner.me {
            let request = TraceRequest { network: id, question };
            let asked = self.inner.core.peers.request(source, proto::TRACE, &request).await;
            match asked {
                Ok(reply) => return Ok(reply),
                Err(error) => tracing::debug!(%source, %error, "tracing from here instead"),
            }
        }
        self.trace_here(id, &question)
    }

    fn trace_for(
        &self,
        asker: NodeId,
        id: NetworkId,
        question: &Question,
    ) -> Result<TraceReply, NodeError> {
        let owner = self.in_force(id).map(|roster| roster.owner);
        if owner != Some(asker) {
            return Err(NodeError::forbidden(format!("node {asker} does not own network {id}")));
        }
        self.trace_here(id, question)
    }

    fn trace_here(&self, id: NetworkId, question: &Question) -> Result<TraceReply, NodeError> {
        let table = self.local().table(id);
        let table =
            table.ok_or_else(|| NodeError::not_found(format!("there is no network {id}")))?;
        let trace = table.trace(question);
        let target = trace.steps.iter().rev().find_map(|step| match step {
            Step::Destination { node, .. } | Step::Route { node, .. } => Some(*node),
            _ => None,
        });
        let target = target.filter(|node| *node != self.inner.me);
        let path = target.and_then(|node| self.inner.core.path_to(node));
        Ok(TraceReply { trace, epoch: table.epoch(), path })
    }

    /// Waits until every member's node follows the present roster, and says whether all do.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn settled(&self, id: NetworkId, limit: Duration) -> Result<bool, NodeError> {
        let nodes = self.roster(id)?.nodes();
        let others: Vec<NodeId> = nodes.into_iter().filter(|n| *n != self.inner.me).collect();
        Ok(self.inner.pusher.settled(id, &others, limit).await)
    }

    /// The network's state, for handlers that changed it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn info_after(
        &self,
        id: NetworkId,
        wait: Option<Duration>,
    ) -> Result<NetworkInfo, NodeError> {
        if let Some(limit) = wait {
            self.settled(id, limit).await?;
        }
        self.get(id)
    }
}

/// Answers owners that ask what this node would do with a packet.
pub(crate) fn serve(core: &Arc<Core>, networks: &Networks) {
    let mut calls = core.peers.serve(proto::TRACE);
    let (inner, networks) = (core.clone(), networks.clone());
    core.spawn(async move {
        while let Some(mut call) = calls.recv().await {
            let networks = networks.clone();
            inner.spawn(async move {
                if let Some(TraceRequest { network, question }) = call.request().await {
                    let answer = networks.trace_for(call.peer, network, &question);
                    call.answer(answer).await;
                }
            });
        }
    });
}

fn set_policy(book: &mut OwnerBook, policy: Policy) -> Result<(), BookError> {
    book.edit_settings(SettingsEdit { policy: Some(policy), ..Default::default() }).map(drop)
}

fn fresh_prefix() -> Result<IpNet, NodeError> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed)
        .map_err(|e| NodeError::internal(format!("no randomness from the system: {e}")))?;
    Ok(generate_ula(&seed))
}
