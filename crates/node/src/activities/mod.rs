//! Activities: the requestor's view of them and the provider's ExeUnits.

mod batch;
mod host;
mod hosted;
mod info;
mod log;
mod remote;
mod requestor;
mod resolve;
mod watch;

use std::sync::Arc;

use gvpn_model::{ActivityId, AgreementId, BatchId, ExeCommand, ExeScript, NetworkId, StatePair};

use crate::{Agreements, Files, Networks, NodeError, core::Core};

pub use info::{ActivityInfo, ActivitySpec, BatchResults, EventStream, Usage};

use host::Host;
use requestor::Requestor;

/// The activity service. Clones are handles of the same one.
#[derive(Clone)]
pub struct Activities {
    requestor: Arc<Requestor>,
    host: Arc<Host>,
}

impl Activities {
    /// Ends what an earlier run left, takes up what this node requested, and starts to serve.
    pub(crate) async fn start(
        core: &Arc<Core>,
        networks: &Networks,
        agreements: &Agreements,
        files: &Files,
    ) -> Result<Self, NodeError> {
        let host = Host::start(core, networks, agreements, files).await?;
        let requestor = Requestor::start(core, networks, agreements)?;
        Ok(Self { requestor, host })
    }

    /// Asks the agreement's provider for an activity. It is `Initialized` when this returns.
    ///
    /// # Errors
    /// `NotFound` for the agreement, `Gone` when it has ended, `Refused`, `Unreachable`.
    pub async fn create(
        &self,
        agreement: AgreementId,
        spec: ActivitySpec,
    ) -> Result<ActivityInfo, NodeError> {
        self.requestor.create(agreement, spec).await
    }

    /// Activities this node requested, ended ones too, oldest first.
    pub fn requested(&self) -> Vec<ActivityInfo> {
        self.requestor.list()
    }

    /// Activities this node runs for others, and those that ended a short while ago.
    pub fn hosted(&self) -> Vec<ActivityInfo> {
        self.host.list()
    }

    /// One activity of either side.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: ActivityId) -> Result<ActivityInfo, NodeError> {
        self.requestor.info(id).or_else(|error| self.host.info(id).ok_or(error))
    }

    /// Sends a script. The rosters it names are with the provider before the script is.
    ///
    /// # Errors
    /// `NotFound`, `Gone`, `Unreachable`.
    pub async fn exec(&self, id: ActivityId, script: ExeScript) -> Result<BatchId, NodeError> {
        self.requestor.exec(id, script).await
    }

    /// Makes a running payload join a network at an address that its provider was given there, or
    /// leave it (`None`).
    ///
    /// # Errors
    /// `NotFound`, `Gone`, `Unreachable`; `Invalid` when the address is not the provider's.
    pub async fn set_network(
        &self,
        id: ActivityId,
        network: NetworkId,
        ip: Option<std::net::IpAddr>,
    ) -> Result<(), NodeError> {
        self.requestor.set_network(id, network, ip).await
    }

    /// Results of a batch as they are now.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn results(&self, id: ActivityId, batch: BatchId) -> Result<BatchResults, NodeError> {
        self.requestor.results(id, batch)
    }

    /// The command that an activity this node requested runs at present.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn running(&self, id: ActivityId) -> Result<Option<ExeCommand>, NodeError> {
        self.requestor.running(id)
    }

    /// Waits until the batch has finished or has a result at `index`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait(
        &self,
        id: ActivityId,
        batch: BatchId,
        index: Option<u32>,
    ) -> Result<BatchResults, NodeError> {
        self.requestor.wait(id, batch, index).await
    }

    /// Events of a batch, from its first; ends after the last.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn events(&self, id: ActivityId, batch: BatchId) -> Result<EventStream, NodeError> {
        self.requestor.events(id, batch)
    }

    /// Present state, as far as the provider has told.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn state(&self, id: ActivityId) -> Result<StatePair, NodeError> {
        self.get(id).map(|info| info.state)
    }

    /// What it has used.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn usage(&self, id: ActivityId) -> Result<Usage, NodeError> {
        match self.host.usage(id).await {
            Some(usage) => Ok(usage),
            None => self.requestor.usage(id).await,
        }
    }

    /// Ends it; repeating it changes nothing. A provider that cannot be reached is told when it can.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn destroy(&self, id: ActivityId) -> Result<(), NodeError> {
        self.requestor.destroy(id).await
    }

    /// Ends every activity that this node runs.
    pub(crate) async fn stop(&self) {
        self.host.stop().await;
    }
}
