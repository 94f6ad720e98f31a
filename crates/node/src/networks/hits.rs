//! How often each rule decided, on all nodes of a network together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gvpn_model::{NetworkId, NodeId};
use gvpn_roster::{Rule, RuleId};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinSet};

use super::Networks;
use crate::{
    NodeError,
    core::Core,
    proto::{self, HitsReply, HitsRequest},
};

/// Who wants to see the rules does not wait longer for a node that does not answer.
const WAIT: Duration = Duration::from_secs(3);
/// How many nodes are asked at once.
const AT_ONCE: usize = 64;

/// A rule of a network's policy, and how often it decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RuleRow {
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// How often it decided about a packet: the sum of all nodes that answered. A packet counts once,
    /// where it starts; it counts where it comes in only if it should not have been sent.
    pub hits: u64,
    /// How many members' nodes did not say in time.
    pub silent: usize,
}

impl Networks {
    /// The rules of the policy, in order. Asks every member's node.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn rules(&self, id: NetworkId) -> Result<Vec<RuleRow>, NodeError> {
        let roster = self.roster(id)?;
        let rules = &roster.settings.policy.rules;
        if rules.is_empty() {
            return Ok(Vec::new());
        }
        let others: Vec<_> = roster.nodes().into_iter().filter(|n| *n != self.inner.me).collect();
        let mut sums: BTreeMap<RuleId, u64> = self.hits_here(id).into_iter().collect();
        let mut silent = others.len();
        for (rule, hits) in self.hits_of(id, others, &mut silent).await {
            let sum = sums.entry(rule).or_default();
            *sum = sum.saturating_add(hits);
        }
        let row = |rule: &Rule| RuleRow {
            rule: rule.clone(),
            hits: sums.get(&rule.id).copied().unwrap_or(0),
            silent,
        };
        Ok(rules.iter().map(row).collect())
    }

    async fn hits_of(
        &self,
        network: NetworkId,
        nodes: Vec<NodeId>,
        silent: &mut usize,
    ) -> Vec<(RuleId, u64)> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut asking = JoinSet::new();
        for node in nodes {
            let (core, turns) = (self.inner.core.clone(), turns.clone());
            asking.spawn(async move {
                let _turn = turns.acquire().await;
                let request = HitsRequest { network };
                core.peers.ask::<_, HitsReply>(node, proto::HITS, &request, WAIT).await
            });
        }
        let mut all = Vec::new();
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok(Ok((reply, _))) => {
                    *silent -= 1;
                    all.extend(reply.hits);
                }
                Ok(Err(error)) => tracing::debug!(%network, %error, "a node's counts are missing"),
                Err(_) => {}
            }
        }
        all
    }

    fn hits_here(&self, id: NetworkId) -> Vec<(RuleId, u64)> {
        self.local().table(id).map(|table| table.live().rule_hits()).unwrap_or_default()
    }
}

/// Answers owners that ask for the counts of this node.
pub(crate) fn serve(core: &Arc<Core>, networks: &Networks) {
    let mut calls = core.peers.serve(proto::HITS);
    let (inner, networks) = (core.clone(), networks.clone());
    core.spawn(async move {
        while let Some(mut call) = calls.recv().await {
            let networks = networks.clone();
            inner.spawn(async move {
                let Some(HitsRequest { network }) = call.request().await else { return };
                let owner = networks.in_force(network).map(|roster| roster.owner);
                let answer = if owner == Some(call.peer) {
                    Ok(HitsReply { hits: networks.hits_here(network) })
                } else {
                    let peer = call.peer;
                    Err(NodeError::forbidden(format!("node {peer} does not own network {network}")))
                };
                call.answer(answer).await;
            });
        }
    });
}
