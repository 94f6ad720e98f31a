//! Messages of other nodes, and what becomes of those that did not arrive.

use chrono::{DateTime, Utc};
use gvpn_model::NodeId;

use super::Market;
use crate::{MarketMessage, Reason, Transmit};

impl Market {
    /// Takes a message of another node. What makes no sense is answered or ignored, never obeyed:
    /// a node can only touch negotiations and agreements that it is a party of.
    pub fn handle_message(&mut self, now: DateTime<Utc>, from: NodeId, message: MarketMessage) {
        self.expire_agreements(now);
        match message {
            MarketMessage::Propose(wire) => self.on_propose(now, from, wire),
            MarketMessage::RejectProposal { proposal, reason } => {
                self.on_proposal_rejected(now, from, &proposal, reason);
            }
            MarketMessage::ProposeAgreement { proposal, terms, signature } => {
                self.on_agreement_proposed(now, from, &proposal, &terms, &signature);
            }
            MarketMessage::ApproveAgreement { agreement, date, signature } => {
                self.on_approved(now, from, agreement, date, &signature);
            }
            MarketMessage::RejectAgreement { agreement, reason } => {
                self.on_agreement_rejected(now, from, agreement, reason);
            }
            MarketMessage::CancelAgreement { agreement, reason } => {
                self.on_cancelled(now, from, agreement, reason);
            }
            MarketMessage::TerminateAgreement { agreement, reason, signature } => {
                self.on_terminated(now, from, agreement, reason, &signature);
            }
        }
        self.reconsider(now);
    }

    /// A message could not be delivered: the other side is treated as if it had said no.
    pub fn delivery_failed(&mut self, now: DateTime<Utc>, transmit: Transmit, why: &str) {
        let Transmit { to, message } = transmit;
        let reason = Some(Reason::new(format!("node {to} cannot be reached: {why}")));
        match message {
            MarketMessage::Propose(wire) => self.on_proposal_rejected(now, to, &wire.id, reason),
            MarketMessage::ProposeAgreement { terms, .. } => {
                if let Ok(terms) = serde_json::from_str::<crate::Terms>(&terms) {
                    self.on_agreement_rejected(now, to, terms.agreement_id, reason);
                }
            }
            MarketMessage::ApproveAgreement { agreement, .. } => {
                // The requestor never learned of it; ending it frees the provider.
                let _ = self.terminate(now, agreement, reason);
            }
            MarketMessage::RejectProposal { .. }
            | MarketMessage::RejectAgreement { .. }
            | MarketMessage::CancelAgreement { .. }
            | MarketMessage::TerminateAgreement { .. } => {}
        }
        self.reconsider(now);
    }
}
