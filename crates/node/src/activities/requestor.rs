//! The requestor's side: activities that this node asked for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gvpn_model::{
    ActivityId, ActivityState, AgreementId, BatchId, ExeCommand, ExeScript, NetworkId, NodeId,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    ActivityInfo, ActivitySpec, Agreement, AgreementState, Agreements, BatchResults, ErrorKind,
    EventStream, Networks, NodeError, Usage,
    activities::{remote::Remote, resolve, watch},
    core::Core,
    proto::{self, ActivityReply, ActivityRequest},
};

/// Kind of the documents that keep requested activities.
const KIND: &str = "requested-activity";
/// How long a provider may take to start an ExeUnit.
const CREATE_LIMIT: Duration = Duration::from_secs(60);
/// How long a provider may take to end one.
const DESTROY_LIMIT: Duration = Duration::from_secs(30);
/// How long a provider may take to say what was used.
const USAGE_LIMIT: Duration = Duration::from_secs(5);
/// Why an activity has ended that this node wanted ended.
pub(crate) const DESTROYED: &str = "destroyed by the requestor";
/// How long an ended activity is remembered across restarts.
const REMEMBERED: chrono::Duration = chrono::Duration::days(1);

/// The requestor's activities.
pub(crate) struct Requestor {
    core: Arc<Core>,
    networks: Networks,
    agreements: Agreements,
    all: Mutex<BTreeMap<ActivityId, Arc<Remote>>>,
    order: Mutex<Vec<ActivityId>>,
}

/// What is kept of an activity.
#[derive(Serialize, Deserialize)]
struct Kept {
    info: ActivityInfo,
    batches: Vec<BatchId>,
    /// The provider has yet to hear that it is over.
    #[serde(default)]
    untold: bool,
}

impl Requestor {
    pub(crate) fn start(
        core: &Arc<Core>,
        networks: &Networks,
        agreements: &Agreements,
    ) -> Result<Arc<Self>, NodeError> {
        let this = Arc::new(Self {
            core: core.clone(),
            networks: networks.clone(),
            agreements: agreements.clone(),
            all: Mutex::default(),
            order: Mutex::default(),
        });
        let old = chrono::Utc::now() - REMEMBERED;
        for Kept { info, batches, untold } in core.store.documents(KIND)? {
            if info.ended.is_some_and(|ended| ended < old) {
                core.store.remove_document(KIND, &info.id.to_string())?;
                continue;
            }
            let over = info.is_over();
            let remote = this.add(Remote::new(info, batches));
            if over {
                remote.end(remote.info().reason);
            } else if untold {
                remote.end(Some(DESTROYED.into()));
            }
            if untold {
                remote.ask_end();
            }
            if !over || untold {
                this.follow(remote);
            }
        }
        this.follow_agreements();
        Ok(this)
    }

    pub(crate) async fn create(
        self: &Arc<Self>,
        agreement: AgreementId,
        spec: ActivitySpec,
    ) -> Result<ActivityInfo, NodeError> {
        let contract = self.agreements.get(agreement)?;
        if contract.state == AgreementState::Terminated {
            let message = format!("agreement {agreement} has ended: make a new one");
            return Err(NodeError::new(ErrorKind::Gone, message));
        }
        if contract.requestor != self.core.me {
            let message = format!("agreement {agreement} was made by {}", contract.requestor);
            return Err(NodeError::forbidden(message));
        }
        // Kept before it is asked for: whatever happens, an ExeUnit that was started is known here.
        let id = ActivityId::random();
        let remote = Remote::new(self.info_of_new(id, &contract), Vec::new());
        self.keep(&remote)?;
        let request = ActivityRequest::Create { id, agreement, spec };
        match self.ask(contract.provider, &request, CREATE_LIMIT).await {
            Ok(ActivityReply::Created { state }) => {
                remote.set_state(state);
                let remote = self.add(remote);
                self.keep(&remote)?;
                let info = remote.info();
                self.follow(remote);
                Ok(info)
            }
            Ok(_) => {
                self.core.store.remove_document(KIND, &id.to_string())?;
                Err(no_answer(contract.provider))
            }
            Err(e) if matches!(e.kind, ErrorKind::Unreachable | ErrorKind::Timeout) => {
                // It may have been started all the same.
                remote.ask_end();
                remote.end(Some(format!("it was not created: {e}")));
                self.follow(Arc::new(remote));
                Err(e)
            }
            Err(e) => {
                self.core.store.remove_document(KIND, &id.to_string())?;
                Err(e)
            }
        }
    }

    fn info_of_new(&self, id: ActivityId, contract: &Agreement) -> ActivityInfo {
        ActivityInfo {
            id,
            agreement: contract.id,
            provider: contract.provider,
            requestor: self.core.me,
            state: (ActivityState::New, None),
            reason: None,
            created: gvpn_model::whole_micros(chrono::Utc::now()),
            ended: None,
        }
    }

    pub(crate) fn list(&self) -> Vec<ActivityInfo> {
        let all = self.all.lock();
        let order = self.order.lock();
        order.iter().filter_map(|id| all.get(id)).map(|remote| remote.info()).collect()
    }

    pub(crate) fn info(&self, id: ActivityId) -> Result<ActivityInfo, NodeError> {
        self.find(id).map(|remote| remote.info())
    }

    pub(crate) async fn exec(
        &self,
        id: ActivityId,
        script: ExeScript,
    ) -> Result<BatchId, NodeError> {
        let remote = self.alive(id)?;
        if script.is_empty() {
            // Clients send such scripts. There is nothing to do, and never a result.
            let batch = BatchId::random();
            remote.add_batch(batch);
            self.keep(&remote)?;
            return Ok(batch);
        }
        let provider = remote.info().provider;
        for network in resolve::named(&script) {
            self.networks.ensure(network, provider).await?;
        }
        let batch = BatchId::random();
        remote.add_batch(batch);
        self.keep(&remote)?;
        let request = ActivityRequest::Exec { id, batch, script };
        match self.ask(provider, &request, crate::peers::ANSWER_LIMIT).await {
            Ok(_) => Ok(batch),
            Err(error) => {
                remote.remove_batch(batch);
                self.keep(&remote)?;
                Err(error)
            }
        }
    }

    pub(crate) async fn set_network(
        &self,
        id: ActivityId,
        network: NetworkId,
        ip: Option<std::net::IpAddr>,
    ) -> Result<(), NodeError> {
        let provider = self.alive(id)?.info().provider;
        self.networks.ensure(network, provider).await?;
        let request = ActivityRequest::Network { id, network, ip };
        self.ask(provider, &request, crate::peers::ANSWER_LIMIT).await.map(drop)
    }

    pub(crate) fn results(
        &self,
        id: ActivityId,
        batch: BatchId,
    ) -> Result<BatchResults, NodeError> {
        self.find(id)?.results(batch)
    }

    pub(crate) fn running(&self, id: ActivityId) -> Result<Option<ExeCommand>, NodeError> {
        Ok(self.find(id)?.running())
    }

    pub(crate) async fn wait(
        &self,
        id: ActivityId,
        batch: BatchId,
        index: Option<u32>,
    ) -> Result<BatchResults, NodeError> {
        self.find(id)?.wait(batch, index).await
    }

    pub(crate) fn events(&self, id: ActivityId, batch: BatchId) -> Result<EventStream, NodeError> {
        self.find(id)?.events(batch)
    }

    pub(crate) async fn usage(&self, id: ActivityId) -> Result<Usage, NodeError> {
        let remote = self.find(id)?;
        if remote.info().is_over() {
            return Ok(remote.usage());
        }
        let request = ActivityRequest::Usage { id };
        if let Ok(ActivityReply::Usage(usage)) =
            self.ask(remote.info().provider, &request, USAGE_LIMIT).await
        {
            remote.set_usage(usage);
        }
        Ok(remote.usage())
    }

    pub(crate) async fn destroy(&self, id: ActivityId) -> Result<(), NodeError> {
        self.end(id, DESTROYED).await
    }

    async fn end(&self, id: ActivityId, why: &str) -> Result<(), NodeError> {
        let remote = self.find(id)?;
        if remote.info().is_over() {
            return Ok(());
        }
        // From here on the follower tells the provider too, should this attempt fail, also if this
        // node is started anew before.
        remote.ask_end_because(why);
        self.keep(&remote)?;
        let request = ActivityRequest::Destroy { id, why: why.to_owned() };
        let reason = match self.ask(remote.info().provider, &request, DESTROY_LIMIT).await {
            Ok(_) => {
                remote.told_end();
                why.to_owned()
            }
            Err(e) if matches!(e.kind, ErrorKind::Gone | ErrorKind::NotFound) => {
                remote.told_end();
                e.message
            }
            Err(e) => format!("{why}; the provider is yet to hear: {e}"),
        };
        remote.end(Some(reason));
        self.keep(&remote)
    }

    pub(crate) fn keep(&self, remote: &Remote) -> Result<(), NodeError> {
        let kept =
            Kept { info: remote.info(), batches: remote.batches(), untold: remote.end_asked() };
        Ok(self.core.store.put_document(KIND, &kept.info.id.to_string(), &kept)?)
    }

    pub(crate) async fn ask(
        &self,
        provider: NodeId,
        request: &ActivityRequest,
        limit: Duration,
    ) -> Result<ActivityReply, NodeError> {
        Ok(self.core.peers.ask(provider, proto::ACTIVITY, request, limit).await?.0)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    fn follow(self: &Arc<Self>, remote: Arc<Remote>) {
        self.core.spawn(watch::follow(self.clone(), remote));
    }

    /// An agreement that ends takes its activities with it.
    fn follow_agreements(self: &Arc<Self>) {
        let mut events = self.agreements.subscribe();
        let this = self.clone();
        self.core.spawn(async move {
            use tokio::sync::broadcast::error::RecvError;
            loop {
                match events.recv().await {
                    Ok(event) if event.agreement.state == AgreementState::Terminated => {
                        let why = event.agreement.why_over();
                        for id in this.of_agreement(event.agreement.id) {
                            let _ = this.end(id, &why).await;
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    fn of_agreement(&self, agreement: AgreementId) -> Vec<ActivityId> {
        let all = self.all.lock();
        let of = all.values().map(|r| r.info()).filter(|info| info.agreement == agreement);
        of.filter(|info| !info.is_over()).map(|info| info.id).collect()
    }

    fn add(&self, remote: Remote) -> Arc<Remote> {
        let remote = Arc::new(remote);
        let id = remote.info().id;
        self.all.lock().insert(id, remote.clone());
        self.order.lock().push(id);
        remote
    }

    fn find(&self, id: ActivityId) -> Result<Arc<Remote>, NodeError> {
        let found = self.all.lock().get(&id).cloned();
        found.ok_or_else(|| NodeError::not_found(format!("there is no activity {id}")))
    }

    fn alive(&self, id: ActivityId) -> Result<Arc<Remote>, NodeError> {
        let remote = self.find(id)?;
        let info = remote.info();
        if info.is_over() {
            let reason = info.reason.unwrap_or_else(|| "no reason given".to_owned());
            let message = format!("activity {id} has ended: {reason}");
            return Err(NodeError::new(ErrorKind::Gone, message));
        }
        Ok(remote)
    }
}

fn no_answer(provider: NodeId) -> NodeError {
    NodeError::internal(format!("node {provider} gave no proper answer"))
}
