//! Agreements: a requestor's contract with one provider.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use gvpn_model::{AgreementId, NodeId};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{
    ErrorKind, NodeError, PolicyChanges, ProviderPolicy,
    core::Core,
    peers::Call,
    policy::PolicyBook,
    proto::{self, AgreementReply, AgreementRequest},
};

/// Kind of the documents that keep agreements.
const KIND: &str = "agreement";
/// Kind of the documents about ends that the other side has yet to hear of.
const UNTOLD: &str = "untold-agreement-end";
/// Pauses between attempts to tell the other side about an end.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How long that is tried.
const TELL_FOR: chrono::Duration = chrono::Duration::days(1);

/// A further check of agreements that requestors propose; the text is the reason of a refusal.
pub type AgreementCheck = dyn Fn(&Agreement) -> Result<(), String> + Send + Sync;

/// The agreement service, requestor's and provider's side. Clones are handles of the same one.
#[derive(Clone)]
pub struct Agreements {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    all: Mutex<BTreeMap<AgreementId, Agreement>>,
    /// The order in which they were made.
    order: Mutex<Vec<AgreementId>>,
    policy: PolicyBook,
    check: RwLock<Option<Box<AgreementCheck>>>,
    events: broadcast::Sender<AgreementEvent>,
}

/// An end that the other side has yet to hear of.
#[derive(Serialize, Deserialize)]
struct Untold {
    id: AgreementId,
    other: NodeId,
    reason: Option<String>,
    since: DateTime<Utc>,
}

/// What the requestor asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct AgreementSpec {
    /// Which runtime; the provider's first when missing.
    pub runtime: Option<String>,
    /// The image of its payloads: a path or URL that the provider understands.
    pub image: Option<String>,
    /// CPU cores.
    pub cpu_cores: Option<f64>,
    /// Memory in GiB.
    pub mem_gib: Option<f64>,
    /// Storage in GiB.
    pub storage_gib: Option<f64>,
    /// Whatever a market wrote into it; opaque here.
    pub terms: serde_json::Value,
}

/// Which side of an agreement this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AgreementRole {
    /// It asked.
    Requestor,
    /// It was asked.
    Provider,
}

/// Life of an agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AgreementState {
    /// Both sides are bound.
    Approved,
    /// One side ended it.
    Terminated,
}

/// An agreement as both sides keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// Its id, given by the requestor.
    pub id: AgreementId,
    /// The requestor.
    pub requestor: NodeId,
    /// The provider.
    pub provider: NodeId,
    /// This node's side.
    pub role: AgreementRole,
    /// What was agreed.
    pub spec: AgreementSpec,
    /// Where it is in its life.
    pub state: AgreementState,
    /// Why it ended.
    pub reason: Option<String>,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// When it ended.
    pub ended: Option<DateTime<Utc>>,
}

impl Agreement {
    /// Why what ran under it has ended.
    pub(crate) fn why_over(&self) -> String {
        match &self.reason {
            Some(reason) => format!("the agreement was terminated: {reason}"),
            None => "the agreement was terminated".to_owned(),
        }
    }
}

/// Something happened to an agreement.
#[derive(Debug, Clone, PartialEq)]
pub struct AgreementEvent {
    /// The agreement as it is now.
    pub agreement: Agreement,
}

impl Agreements {
    /// Takes up what was kept and starts to serve.
    pub(crate) fn start(core: &Arc<Core>) -> Result<Self, NodeError> {
        let kept: Vec<Agreement> = core.store.documents(KIND)?;
        let order = kept.iter().map(|agreement| agreement.id).collect();
        let (events, _) = broadcast::channel(1024);
        let this = Self {
            inner: Arc::new(Inner {
                core: core.clone(),
                all: Mutex::new(kept.into_iter().map(|a| (a.id, a)).collect()),
                order: Mutex::new(order),
                policy: PolicyBook::open(core)?,
                check: RwLock::default(),
                events,
            }),
        };
        this.serve();
        for untold in core.store.documents::<Untold>(UNTOLD)? {
            this.tell_end(untold);
        }
        Ok(this)
    }

    /// Asks `provider` for an agreement and waits for its answer.
    ///
    /// # Errors
    /// `Refused` with the provider's reason; `Unreachable`.
    pub async fn propose(
        &self,
        provider: NodeId,
        spec: AgreementSpec,
    ) -> Result<Agreement, NodeError> {
        self.propose_as(AgreementId::random(), provider, spec).await
    }

    /// As [`propose`](Self::propose), under an id that a market gave.
    ///
    /// # Errors
    /// As there; `Conflict` for an id in use.
    pub async fn propose_as(
        &self,
        id: AgreementId,
        provider: NodeId,
        spec: AgreementSpec,
    ) -> Result<Agreement, NodeError> {
        if self.inner.all.lock().contains_key(&id) {
            return Err(NodeError::conflict(format!("there is an agreement {id} already")));
        }
        let core = &self.inner.core;
        let request = AgreementRequest::Propose { id, spec };
        let spec = match core.peers.request(provider, proto::AGREEMENT, &request).await {
            Ok(AgreementReply::Approved(spec)) => spec,
            Ok(AgreementReply::Terminated) => {
                return Err(NodeError::internal(format!("node {provider} gave no proper answer")));
            }
            Err(error) => {
                if error.kind == ErrorKind::Timeout {
                    // It may have agreed: this node has not.
                    self.announce_end(id, provider, Some("the answer came too late".into()))?;
                }
                return Err(error);
            }
        };
        let agreement = Agreement::approved(id, core.me, provider, AgreementRole::Requestor, spec);
        // A node that contracts itself has kept it already, as the provider.
        if provider != core.me {
            self.keep(agreement.clone())?;
        }
        Ok(agreement)
    }

    /// Every agreement known, ended ones too, oldest first.
    pub fn list(&self) -> Vec<Agreement> {
        let all = self.inner.all.lock();
        self.inner.order.lock().iter().filter_map(|id| all.get(id).cloned()).collect()
    }

    /// One agreement.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: AgreementId) -> Result<Agreement, NodeError> {
        let found = self.inner.all.lock().get(&id).cloned();
        found.ok_or_else(|| NodeError::not_found(format!("there is no agreement {id}")))
    }

    /// Ends an agreement and its activities; repeating it changes nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn terminate(
        &self,
        id: AgreementId,
        reason: Option<String>,
    ) -> Result<(), NodeError> {
        let agreement = self.get(id)?;
        if agreement.state == AgreementState::Terminated {
            return Ok(());
        }
        self.end(id, reason.clone())?;
        let me = self.inner.core.me;
        let other = if agreement.provider == me { agreement.requestor } else { agreement.provider };
        if other != me {
            self.announce_end(id, other, reason)?;
        }
        Ok(())
    }

    /// Every change from now on, of both roles.
    pub fn subscribe(&self) -> broadcast::Receiver<AgreementEvent> {
        self.inner.events.subscribe()
    }

    /// The provider's policy; `None` when this node is no provider.
    pub fn policy(&self) -> Option<ProviderPolicy> {
        self.inner.policy.get()
    }

    /// Settings of the policy that were changed and go before the configuration's.
    ///
    /// # Errors
    /// `Internal` when the state file cannot be read.
    pub fn policy_changes(&self) -> Result<PolicyChanges, NodeError> {
        self.inner.policy.changes()
    }

    /// Replaces the provider's policy for agreements and activities from now on. What differs from
    /// the configuration is kept.
    pub(crate) fn set_policy(&self, policy: Option<ProviderPolicy>) -> Result<(), NodeError> {
        self.inner.policy.set(policy)
    }

    /// Sets a further check of what requestors propose, made after the policy's.
    pub fn set_check(
        &self,
        check: impl Fn(&Agreement) -> Result<(), String> + Send + Sync + 'static,
    ) {
        *self.inner.check.write() = Some(Box::new(check));
    }

    /// Lets go of what others hooked in.
    pub(crate) fn stop(&self) {
        *self.inner.check.write() = None;
    }

    fn keep(&self, agreement: Agreement) -> Result<(), NodeError> {
        self.inner.core.store.put_document(KIND, &agreement.id.to_string(), &agreement)?;
        if self.inner.all.lock().insert(agreement.id, agreement.clone()).is_none() {
            self.inner.order.lock().push(agreement.id);
        }
        let _ = self.inner.events.send(AgreementEvent { agreement });
        Ok(())
    }

    fn end(&self, id: AgreementId, reason: Option<String>) -> Result<(), NodeError> {
        let mut agreement = self.get(id)?;
        if agreement.state == AgreementState::Terminated {
            return Ok(());
        }
        agreement.state = AgreementState::Terminated;
        agreement.reason = reason;
        agreement.ended = Some(gvpn_model::whole_micros(Utc::now()));
        self.keep(agreement)
    }

    /// Has the other side told, also if this node is started anew before it could be.
    fn announce_end(
        &self,
        id: AgreementId,
        other: NodeId,
        reason: Option<String>,
    ) -> Result<(), NodeError> {
        let untold = Untold { id, other, reason, since: Utc::now() };
        self.inner.core.store.put_document(UNTOLD, &id.to_string(), &untold)?;
        self.tell_end(untold);
        Ok(())
    }

    /// Tells the other side, again for a day when it does not answer.
    fn tell_end(&self, untold: Untold) {
        let core = self.inner.core.clone();
        self.inner.core.spawn(async move {
            let Untold { id, other, reason, since } = untold;
            let request = AgreementRequest::Terminate { id, reason };
            let mut pause = PAUSE.0;
            while Utc::now() - since < TELL_FOR {
                let told: Result<AgreementReply, _> =
                    core.peers.request(other, proto::AGREEMENT, &request).await;
                match told {
                    Err(e) if matches!(e.kind, ErrorKind::Unreachable | ErrorKind::Timeout) => {}
                    _ => break,
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            if let Err(error) = core.store.remove_document(UNTOLD, &id.to_string()) {
                tracing::warn!(%error, agreement = %id, "its end will be told again");
            }
        });
    }

    fn serve(&self) {
        let mut calls = self.inner.core.peers.serve(proto::AGREEMENT);
        let this = self.clone();
        self.inner.core.spawn(async move {
            while let Some(call) = calls.recv().await {
                let handler = this.clone();
                this.inner.core.spawn(async move { handler.answer(call).await });
            }
        });
    }

    async fn answer(&self, mut call: Call) {
        let answer = match call.request().await {
            None => return,
            Some(AgreementRequest::Propose { id, spec }) => self.proposed(call.peer, id, spec),
            Some(AgreementRequest::Terminate { id, reason }) => {
                self.ended_by(call.peer, id, reason)
            }
        };
        call.answer(answer).await;
    }

    /// The policy without runtimes that are known not to work on this host.
    fn working(&self, mut policy: ProviderPolicy) -> ProviderPolicy {
        policy.runtimes.retain(|name| self.inner.core.runtimes.fault(name).is_none());
        policy
    }

    /// A requestor asks; repeating a proposal that was approved is answered the same.
    fn proposed(
        &self,
        requestor: NodeId,
        id: AgreementId,
        spec: AgreementSpec,
    ) -> Result<AgreementReply, NodeError> {
        if let Ok(known) = self.get(id) {
            let same = known.requestor == requestor && known.role == AgreementRole::Provider;
            return match known.state {
                AgreementState::Approved if same => Ok(AgreementReply::Approved(known.spec)),
                _ => Err(NodeError::conflict(format!("agreement {id} exists already"))),
            };
        }
        let policy = self.policy();
        let policy = policy.ok_or_else(|| {
            NodeError::refused("this node is not a provider: start it with the provider role")
        })?;
        let spec = self.working(policy).admit(requestor, spec).map_err(NodeError::refused)?;
        let agreement =
            Agreement::approved(id, requestor, self.inner.core.me, AgreementRole::Provider, spec);
        if let Some(check) = self.inner.check.read().as_ref() {
            check(&agreement).map_err(NodeError::refused)?;
        }
        self.keep(agreement.clone())?;
        Ok(AgreementReply::Approved(agreement.spec))
    }

    fn ended_by(
        &self,
        peer: NodeId,
        id: AgreementId,
        reason: Option<String>,
    ) -> Result<AgreementReply, NodeError> {
        let agreement = self.get(id)?;
        if peer != agreement.requestor && peer != agreement.provider {
            return Err(NodeError::forbidden(format!("agreement {id} is not with node {peer}")));
        }
        self.end(id, reason)?;
        Ok(AgreementReply::Terminated)
    }
}

impl Agreement {
    fn approved(
        id: AgreementId,
        requestor: NodeId,
        provider: NodeId,
        role: AgreementRole,
        spec: AgreementSpec,
    ) -> Self {
        Self {
            id,
            requestor,
            provider,
            role,
            spec,
            state: AgreementState::Approved,
            reason: None,
            created: gvpn_model::whole_micros(Utc::now()),
            ended: None,
        }
    }
}
