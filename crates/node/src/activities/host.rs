//! The provider's side: ExeUnits for requestors that this node has agreements with.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::Utc;
use gvpn_exeunit::{ExeUnit, ExeUnitConfig, Limits};
use gvpn_model::{ActivityId, ActivityState, AgreementId, BatchId, ExeScript, NetworkId, NodeId};
use parking_lot::Mutex;

use crate::{
    ActivityInfo, ActivitySpec, Agreement, AgreementRole, AgreementState, Agreements, ErrorKind,
    Files, Networks, NodeError, Usage,
    activities::{
        hosted::{Hosted, Joined, Share},
        resolve::{self, Applicant},
    },
    core::{Core, make_directory},
    market::capabilities,
    peers::Call,
    proto::{self, ActivityReply, ActivityRequest, ActivityUpdate, Numbered},
};

mod events;
mod image;
mod nics;

/// Characters of a requestor's reason that are kept.
const WHY_LIMIT: usize = 300;
/// Kind of the documents that keep activities of others.
const KIND: &str = "hosted-activity";
/// How long an ended activity's log is kept for its requestor.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// Entries of a log that are sent at once.
const CHUNK: usize = 64;

/// The activities that this node runs for others.
pub(crate) struct Host {
    core: Arc<Core>,
    networks: Networks,
    agreements: Agreements,
    files: Files,
    all: Mutex<BTreeMap<ActivityId, Arc<Hosted>>>,
    /// Creations go one at a time, so that limits hold.
    creating: tokio::sync::Mutex<()>,
}

impl Host {
    /// Ends what an earlier run left behind, then serves.
    pub(crate) async fn start(
        core: &Arc<Core>,
        networks: &Networks,
        agreements: &Agreements,
        files: &Files,
    ) -> Result<Arc<Self>, NodeError> {
        let this = Arc::new(Self {
            core: core.clone(),
            networks: networks.clone(),
            agreements: agreements.clone(),
            files: files.clone(),
            all: Mutex::default(),
            creating: tokio::sync::Mutex::default(),
        });
        this.bury_old().await?;
        this.follow_rosters();
        this.follow_agreements();
        this.serve();
        Ok(this)
    }

    pub(crate) fn list(&self) -> Vec<ActivityInfo> {
        self.all.lock().values().map(|hosted| hosted.info()).collect()
    }

    pub(crate) fn info(&self, id: ActivityId) -> Option<ActivityInfo> {
        self.all.lock().get(&id).map(|hosted| hosted.info())
    }

    /// What an activity has used, measured now; `None` when it is not this node's.
    pub(crate) async fn usage(&self, id: ActivityId) -> Option<Usage> {
        let hosted = self.all.lock().get(&id).cloned()?;
        Some(self.usage_of(&hosted).await)
    }

    /// Ends everything.
    pub(crate) async fn stop(&self) {
        let all: Vec<_> = self.all.lock().values().cloned().collect();
        let ends = all.iter().map(|hosted| self.end(hosted, "the provider was stopped"));
        for end in ends.collect::<Vec<_>>() {
            end.await;
        }
    }

    /// Activities of an earlier run cannot be taken up again: their ExeUnits went with it.
    async fn bury_old(&self) -> Result<(), NodeError> {
        let old: Vec<ActivityInfo> = self.core.store.documents(KIND)?;
        for mut info in old {
            let id = info.id.to_string();
            let long_ago = Utc::now() - chrono::Duration::days(1);
            if info.ended.is_some_and(|ended| ended < long_ago) {
                self.core.store.remove_document(KIND, &id)?;
            } else if !info.is_over() {
                info.end(Some("the provider's daemon was started anew".to_owned()));
                self.core.store.put_document(KIND, &id, &info)?;
            }
        }
        for dir in [self.core.activities_dir(), self.core.probes_dir()] {
            make_directory(&dir)?;
            if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_none()) {
                continue;
            }
            gvpn_exeunit::sweep(&dir).await.map_err(|e| {
                NodeError::internal(format!(
                    "cannot clear {} of old activities: {e}",
                    dir.display()
                ))
            })?;
        }
        Ok(())
    }

    fn serve(self: &Arc<Self>) {
        let mut calls = self.core.peers.serve(proto::ACTIVITY);
        let this = self.clone();
        self.core.spawn(async move {
            while let Some(call) = calls.recv().await {
                let handler = this.clone();
                this.core.spawn(async move { handler.answer(call).await });
            }
        });
    }

    async fn answer(self: Arc<Self>, mut call: Call) {
        let Some(request) = call.request().await else { return };
        if let ActivityRequest::Watch { id, from } = request {
            match self.find(call.peer, id) {
                Ok(hosted) => {
                    if let Err(error) = watch(&mut call, &hosted, from).await {
                        tracing::debug!(peer = %call.peer, %error, "the requestor stopped watching");
                    }
                }
                Err(error) => call.answer::<ActivityReply>(Err(error)).await,
            }
            return;
        }
        // What was begun is finished, even when the requestor does not wait for it.
        let peer = call.peer;
        let work = self.clone().handle(peer, request);
        let handled = self.core.tasks.spawn(work).await;
        let answer = handled.unwrap_or_else(|e| Err(NodeError::internal(e)));
        call.answer(answer).await;
    }

    async fn handle(
        self: Arc<Self>,
        peer: NodeId,
        request: ActivityRequest,
    ) -> Result<ActivityReply, NodeError> {
        match request {
            ActivityRequest::Create { id, agreement, spec } => {
                let hosted = self.create(peer, id, agreement, spec).await?;
                Ok(ActivityReply::Created { state: hosted.info().state })
            }
            ActivityRequest::Exec { id, batch, script } => {
                self.exec(&*self.find(peer, id)?, batch, script)?;
                Ok(ActivityReply::Done)
            }
            ActivityRequest::Network { id, network, ip } => {
                let hosted = self.find(peer, id)?;
                self.set_network(&hosted, network, ip)?;
                Ok(ActivityReply::Done)
            }
            ActivityRequest::Destroy { id, why } => {
                let hosted = self.find(peer, id)?;
                let why: String = why.chars().take(WHY_LIMIT).collect();
                self.end(&hosted, &why).await;
                Ok(ActivityReply::Done)
            }
            ActivityRequest::Usage { id } => {
                let hosted = self.find(peer, id)?;
                Ok(ActivityReply::Usage(self.usage_of(&hosted).await))
            }
            ActivityRequest::Watch { .. } => Err(NodeError::internal("a watch is no request")),
        }
    }

    async fn create(
        self: &Arc<Self>,
        peer: NodeId,
        id: ActivityId,
        agreement: AgreementId,
        spec: ActivitySpec,
    ) -> Result<Arc<Hosted>, NodeError> {
        let _one_at_a_time = self.creating.lock().await;
        if let Some(known) = self.all.lock().get(&id) {
            let info = known.info();
            if info.requestor == peer && info.agreement == agreement {
                return Ok(known.clone());
            }
            return Err(NodeError::conflict(format!("there is an activity {id} already")));
        }
        let contract = self.contract(peer, agreement)?;
        let share = self.admit(&contract)?;
        let config = self.unit_config(id, &contract, &spec)?;
        let (unit, events) = ExeUnit::spawn(config).await.map_err(|e| {
            NodeError::new(ErrorKind::Unavailable, format!("the activity did not start: {e}"))
        })?;
        let info = ActivityInfo {
            id,
            agreement,
            provider: self.core.me,
            requestor: peer,
            state: (ActivityState::Initialized, None),
            reason: None,
            created: gvpn_model::whole_micros(Utc::now()),
            ended: None,
        };
        self.core.store.put_document(KIND, &id.to_string(), &info)?;
        let hosted = Arc::new(Hosted::new(info, share));
        hosted.set_unit(unit);
        self.all.lock().insert(id, hosted.clone());
        self.core.tasks.spawn(events::run(self.clone(), hosted.clone(), events));
        Ok(hosted)
    }

    fn contract(&self, peer: NodeId, id: AgreementId) -> Result<Agreement, NodeError> {
        let contract = self.agreements.get(id)?;
        if contract.requestor != peer || contract.role != AgreementRole::Provider {
            return Err(NodeError::forbidden(format!("agreement {id} is not with node {peer}")));
        }
        if contract.state == AgreementState::Terminated {
            return Err(NodeError::new(ErrorKind::Gone, format!("agreement {id} has ended")));
        }
        Ok(contract)
    }

    /// Checks the policy's limits against what runs now.
    fn admit(&self, contract: &Agreement) -> Result<Share, NodeError> {
        let policy = self.agreements.policy();
        let policy = policy.ok_or_else(|| NodeError::refused("this node is not a provider"))?;
        let spec = &contract.spec;
        let share = Share {
            cpu_cores: spec.cpu_cores.unwrap_or(0.0),
            mem_gib: spec.mem_gib.unwrap_or(0.0),
            storage_gib: spec.storage_gib.unwrap_or(0.0),
        };
        let all = self.all.lock();
        let running: Vec<_> = all.values().filter(|hosted| !hosted.info().is_over()).collect();
        if running.len() >= policy.max_activities as usize {
            return Err(NodeError::refused(format!(
                "this provider runs {} activities, the most it accepts: try later or elsewhere",
                running.len()
            )));
        }
        let used = |of: fn(&Share) -> f64| running.iter().map(|h| of(&h.share)).sum::<f64>();
        room("CPU cores", used(|s| s.cpu_cores), share.cpu_cores, policy.cpu_cores)?;
        room("GiB of memory", used(|s| s.mem_gib), share.mem_gib, policy.mem_gib)?;
        room("GiB of storage", used(|s| s.storage_gib), share.storage_gib, policy.storage_gib)?;
        Ok(share)
    }

    fn unit_config(
        &self,
        id: ActivityId,
        contract: &Agreement,
        spec: &ActivitySpec,
    ) -> Result<ExeUnitConfig, NodeError> {
        let config = &self.core.config;
        let policy = self.agreements.policy().unwrap_or_default();
        let image = spec.image.as_ref().or(contract.spec.image.as_ref());
        let image = image.map(|image| image::admit(image, &policy.image_dirs)).transpose()?;
        let workdir = self.core.activities_dir().join(id.to_string());
        let mut unit = ExeUnitConfig::new(id, workdir, self.core.images_dir());
        unit.exe = config.exe.clone();
        unit.tun_device = config.tun_device.clone();
        unit.runtime = contract.spec.runtime.clone().unwrap_or(unit.runtime);
        unit.image = image;
        unit.limits = Limits {
            memory: contract.spec.mem_gib.map(bytes),
            cpu_cores: contract.spec.cpu_cores,
            storage: contract.spec.storage_gib.map(bytes),
            ..Limits::default()
        };
        Ok(unit)
    }

    fn exec(&self, hosted: &Hosted, batch: BatchId, script: ExeScript) -> Result<(), NodeError> {
        let unit = hosted.unit().ok_or_else(|| gone(&hosted.info()))?;
        if !hosted.add_batch(batch) {
            return Ok(());
        }
        let applicant = self.applicant(hosted);
        let wanted = match resolve::networks(&script, self.networks.local(), applicant) {
            Ok(wanted) => wanted,
            // The first command fails here with a reason; a later one is left to the ExeUnit,
            // which has no network for it either.
            Err((0, error)) => {
                hosted.fail_command(batch, &script[0], error.message);
                return Ok(());
            }
            Err(_) => Vec::new(),
        };
        if !wanted.is_empty() && !capabilities::has_vpn(&self.core) {
            let reason = "this provider cannot join networks: ask for one that can, by \
                          (golem.runtime.capabilities=vpn) in the demand";
            hosted.fail_command(batch, &script[0], reason.to_owned());
            return Ok(());
        }
        let mut joined = hosted.joined.lock();
        for net in &wanted {
            let fresh = Joined {
                ip: net.ip,
                member: Some(net.config.member),
                port: None,
                told: Some(net.config.clone()),
                live: false,
            };
            // A network that the payload is in already stays as it is.
            let entry = joined.entry(net.network).or_insert_with(|| fresh.clone());
            if !entry.live {
                *entry = fresh;
            }
        }
        drop(joined);
        unit.exec(batch, script, wanted.into_iter().map(|net| net.config).collect());
        Ok(())
    }

    fn applicant(&self, hosted: &Hosted) -> Applicant {
        let info = hosted.info();
        Applicant { me: self.core.me, requestor: info.requestor, activity: info.id }
    }

    /// Ends an activity and waits until nothing of it is left.
    async fn end(&self, hosted: &Arc<Hosted>, reason: &str) {
        if let Some(unit) = hosted.unit() {
            // The last figures are the ones that count.
            hosted.measure().await;
            unit.terminate_because(reason).await;
        }
        self.ended(hosted, Some(reason.to_owned()));
    }

    /// Notes that an activity has ended.
    fn ended(&self, hosted: &Arc<Hosted>, reason: Option<String>) {
        self.detach_all(hosted);
        if !hosted.end(reason) {
            return;
        }
        let info = hosted.info();
        if let Err(error) = self.core.store.put_document(KIND, &info.id.to_string(), &info) {
            tracing::error!(activity = %info.id, %error, "its end was not kept");
        }
    }

    fn forget_later(self: &Arc<Self>, id: ActivityId) {
        let this = self.clone();
        self.core.spawn(async move {
            tokio::time::sleep(KEPT_FOR).await;
            this.all.lock().remove(&id);
        });
    }

    fn find(&self, peer: NodeId, id: ActivityId) -> Result<Arc<Hosted>, NodeError> {
        let found = self.all.lock().get(&id).cloned();
        match found {
            Some(hosted) if hosted.info().requestor == peer => Ok(hosted),
            Some(_) => {
                Err(NodeError::forbidden(format!("activity {id} was not requested by {peer}")))
            }
            None => match self.core.store.document::<ActivityInfo>(KIND, &id.to_string())? {
                Some(info) if info.requestor == peer => Err(gone(&info)),
                _ => Err(NodeError::not_found(format!("this provider has no activity {id}"))),
            },
        }
    }

    /// Changes of rosters reach the payloads.
    fn follow_rosters(self: &Arc<Self>) {
        use tokio::sync::broadcast::error::RecvError;
        let mut changes = self.networks.local().subscribe();
        let this = self.clone();
        self.core.spawn(async move {
            loop {
                match changes.recv().await {
                    Ok(network) => this.reconcile(Some(network)),
                    Err(RecvError::Lagged(_)) => this.reconcile(None),
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    /// An agreement that ends takes its activities with it.
    fn follow_agreements(self: &Arc<Self>) {
        use tokio::sync::broadcast::error::RecvError;
        let mut events = self.agreements.subscribe();
        let this = self.clone();
        self.core.spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) if event.agreement.state == AgreementState::Terminated => {
                        this.end_of_agreement(&event.agreement).await;
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    async fn end_of_agreement(&self, agreement: &Agreement) {
        let reason = agreement.why_over();
        let all: Vec<_> = self.all.lock().values().cloned().collect();
        for hosted in all {
            let info = hosted.info();
            if info.agreement == agreement.id && !info.is_over() {
                self.end(&hosted, &reason).await;
            }
        }
    }

    fn set_network(
        &self,
        hosted: &Arc<Hosted>,
        network: NetworkId,
        ip: Option<std::net::IpAddr>,
    ) -> Result<(), NodeError> {
        let unit = hosted.unit().ok_or_else(|| gone(&hosted.info()))?;
        if !matches!(hosted.info().state.0, ActivityState::Deployed | ActivityState::Ready) {
            return Err(NodeError::conflict(
                "the activity is not deployed: name its networks in DEPLOY",
            ));
        }
        let Some(ip) = ip else {
            self.leave(hosted, &unit, network);
            hosted.joined.lock().remove(&network);
            return Ok(());
        };
        let roster = resolve::roster(self.networks.local(), network, self.core.me)?;
        resolve::member_at(&roster, ip, self.applicant(hosted))?;
        let fresh = Joined { ip, member: None, port: None, told: None, live: true };
        hosted.joined.lock().entry(network).or_insert(fresh).ip = ip;
        self.reconcile_one(hosted, network);
        Ok(())
    }
}

/// Sends a log's entries from number `from` on until it ends or the requestor is gone.
async fn watch(call: &mut Call, hosted: &Hosted, mut from: u64) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    call.reply(&Ok(ActivityReply::Watching)).await?;
    let mut ticks = hosted.log.subscribe();
    loop {
        ticks.borrow_and_update();
        let (entries, ended) = hosted.log.read(from, CHUNK);
        for entry in &entries {
            proto::send(&mut call.channel, entry).await?;
            from = entry.number.map_or(from, |number| number + 1);
        }
        if ended {
            return call.channel.shutdown().await;
        }
        if entries.len() == CHUNK {
            continue;
        }
        let alive = super::watch::ALIVE_EVERY;
        if tokio::time::timeout(alive, ticks.changed()).await.is_err() {
            let sign = Numbered { number: None, update: ActivityUpdate::Alive };
            proto::send(&mut call.channel, &sign).await?;
        }
    }
}

fn room(what: &str, used: f64, asked: f64, most: f64) -> Result<(), NodeError> {
    if used + asked <= most + 1e-9 {
        return Ok(());
    }
    Err(NodeError::refused(format!(
        "{asked} {what} are not free on this provider now ({used} of {most} are in use)"
    )))
}

fn gone(info: &ActivityInfo) -> NodeError {
    let reason = info.reason.as_deref().unwrap_or("no reason given");
    NodeError::new(ErrorKind::Gone, format!("activity {} has ended: {reason}", info.id))
}

fn bytes(gib: f64) -> u64 {
    (gib * f64::from(1 << 30)) as u64
}
