//! Agreements of the market and the contracts that activities run under: made and ended together.

use gvpn_market::{
    Agreement, AgreementFilter, AgreementState, Reason, Side,
    provider::{Package, chosen_platform, package},
};
use gvpn_model::{AgreementId, NodeId};
use gvpn_payment::{Contract, DEFAULT_PLATFORM};
use serde_json::json;

use super::Markets;
use crate::{AgreementSpec, NodeError, agreements};

/// The offer's property that names the provider's own runtime behind `golem.runtime.name`.
pub(super) const RUNTIME: &str = "gvpn.runtime";

impl Markets {
    /// The provider has approved: before clients see it, the contract is made, so that an activity
    /// can be created at once.
    pub(super) async fn bind(&self, provider: NodeId, id: AgreementId) {
        let Ok(agreement) = self.look(|market| market.agreement(id).cloned()) else { return };
        let waits = agreement.state == AgreementState::Pending
            && agreement.offer.provider_id == provider
            && self.look(|market| market.side(id)) == Some(Side::Requestor);
        if !waits || self.inner.agreements.get(id).is_ok() {
            return;
        }
        let spec = match self.spec(&agreement) {
            Ok(spec) => spec,
            Err(error) => return self.decline(id, &error),
        };
        if let Err(error) = self.inner.agreements.propose_as(id, provider, spec).await {
            self.decline(id, &error);
        }
    }

    /// Contracts that the market made are made only while their agreement is in force, and only
    /// with its requestor.
    pub(super) fn check_contracts(&self) {
        let this = self.clone();
        self.inner.agreements.set_check(move |contract| {
            if contract.spec.terms["market"] != json!(true) {
                return Ok(());
            }
            let agreement = this.look(|market| market.agreement(contract.id).cloned());
            match agreement {
                Ok(a) if a.demand.requestor_id != contract.requestor => {
                    Err(format!("agreement {} is with somebody else", contract.id))
                }
                Ok(a) if a.state == AgreementState::Approved => Ok(()),
                Ok(_) => Err(format!("agreement {} is not in force", contract.id)),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    pub(super) fn came_into_force(&self, agreement: Agreement, side: Side) {
        self.inner.payments.know(contract(&agreement));
        if side == Side::Provider {
            self.inner.payments.follow(&agreement);
            self.agent_renews();
        }
        tracing::info!(id = %agreement.agreement_id, ?side, "agreement approved");
    }

    pub(super) fn ended(&self, agreement: Agreement, side: Side, reason: Option<Reason>) {
        let id = agreement.agreement_id;
        let this = self.clone();
        let message = reason.map(|r| r.message().to_owned()).filter(|m| !m.is_empty());
        tracing::info!(%id, ?side, reason = message.as_deref(), "agreement terminated");
        self.inner.core.spawn(async move {
            // An agreement that was never bound has no contract.
            if this.inner.agreements.get(id).is_ok() {
                let _ = this.inner.agreements.terminate(id, message).await;
            }
            if side == Side::Provider {
                this.inner.payments.settle(&contract(&agreement), this.activities_of(id));
                this.agent_renews();
            }
        });
    }

    /// After a restart: payments are told about the agreements, and invoices that are missing are
    /// written.
    pub(super) fn know_contracts(&self) {
        let all: Vec<_> = self.look(|market| {
            let ids = market.agreements(&AgreementFilter::default());
            let with_side = ids.iter().map(|e| (market.agreement(e.id).cloned(), e.role));
            with_side.filter_map(|(a, side)| Some((a.ok()?, side))).collect()
        });
        for (agreement, side) in all {
            let contract = contract(&agreement);
            self.inner.payments.know(contract.clone());
            match (side, agreement.state) {
                (Side::Provider, AgreementState::Approved) => {
                    self.inner.payments.follow(&agreement);
                }
                (Side::Provider, AgreementState::Terminated) => {
                    self.inner
                        .payments
                        .settle(&contract, self.activities_of(agreement.agreement_id));
                }
                _ => {}
            }
        }
    }

    /// A contract that ends in another way takes its agreement with it.
    pub(super) fn follow_agreements(&self) {
        use tokio::sync::broadcast::error::RecvError;
        self.check_contracts();
        let mut events = self.inner.agreements.subscribe();
        let this = self.clone();
        self.inner.core.spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event)
                        if event.agreement.state == agreements::AgreementState::Terminated =>
                    {
                        this.contract_ended(&event.agreement);
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    fn contract_ended(&self, contract: &agreements::Agreement) {
        let in_force = self.look(|market| {
            market.agreement(contract.id).is_ok_and(|a| a.state == AgreementState::Approved)
        });
        if in_force {
            let reason = contract.reason.clone().map(Reason::new);
            // Both sides may end it at the same time.
            let _ = self.act(|market, now| market.terminate(now, contract.id, reason));
        }
    }

    fn activities_of(&self, id: AgreementId) -> Vec<String> {
        let mut all = self.inner.activities.hosted();
        all.retain(|a| a.agreement == id);
        all.iter().map(|a| a.id.to_string()).collect()
    }

    fn decline(&self, id: AgreementId, error: &NodeError) {
        tracing::warn!(%id, %error, "the agreement could not be bound");
        let reason = Reason::new(error.message.clone());
        self.act(|market, now| market.decline_approval(now, id, reason));
    }

    /// What the contract says: the runtime behind the offer and the image that the demand names.
    fn spec(&self, agreement: &Agreement) -> Result<AgreementSpec, NodeError> {
        let runtime = agreement.offer.draft.properties.text(RUNTIME).map(str::to_owned);
        let package = package(&agreement.demand)
            .map_err(|e| NodeError::invalid(format!("the demand's payload: {e}")))?;
        let image = match package {
            Package::None => None,
            // What this node keeps itself, providers fetch from it over Golem Net: they may not
            // reach the registry that the client was told, such as one on this host's loopback.
            Package::Image { url, sha3: Some(hash) } => {
                let url = self.inner.images.by_hash(&hash).map_or(url, |image| image.url);
                Some(format!("hash:sha3:{hash}:{url}"))
            }
            Package::Image { url, sha3: None } => Some(url),
        };
        Ok(AgreementSpec {
            runtime,
            image,
            terms: json!({ "market": true }),
            ..AgreementSpec::default()
        })
    }
}

/// What payments have to know about an agreement.
fn contract(agreement: &Agreement) -> Contract {
    let (platform, payer) = chosen_platform(&agreement.demand)
        .unwrap_or_else(|| (DEFAULT_PLATFORM.to_owned(), String::new()));
    let payee = agreement
        .offer
        .draft
        .properties
        .text(&format!("golem.com.payment.platform.{platform}.address"))
        .map_or_else(|| agreement.offer.provider_id.to_string(), str::to_owned);
    let requestor = agreement.demand.requestor_id;
    Contract {
        agreement_id: agreement.agreement_id.to_string(),
        requestor,
        provider: agreement.offer.provider_id,
        platform,
        payer_addr: if payer.is_empty() { requestor.to_string() } else { payer },
        payee_addr: payee,
        session: agreement.app_session_id.clone(),
    }
}
