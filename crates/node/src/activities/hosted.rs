//! One activity that this node runs, and the networks it is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use chrono::Utc;
use gvpn_dataplane::PortId;
use gvpn_exeunit::{ExeUnit, NetworkConfig};
use gvpn_model::{
    ActivityState, BatchEvent, BatchEventKind, BatchId, CommandResult, ExeCommand, MemberId,
    NetworkId, ResultKind, StatePair,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    ActivityInfo,
    activities::{info::Traffic, log::Log},
    proto::ActivityUpdate,
};

/// How long an ExeUnit may take to say what was used.
const USAGE_WAIT: Duration = Duration::from_secs(4);

/// An activity on this node.
pub(crate) struct Hosted {
    info: Mutex<ActivityInfo>,
    pub(crate) log: Log,
    /// Gone when the activity has ended.
    unit: Mutex<Option<Arc<ExeUnit>>>,
    pub(crate) joined: Mutex<BTreeMap<NetworkId, Joined>>,
    batches: Mutex<BTreeSet<BatchId>>,
    usage: watch::Sender<gvpn_exeunit::Usage>,
    /// What vNICs that are gone have carried.
    pub(crate) carried: Mutex<Traffic>,
    /// What the agreement reserved for it.
    pub(crate) share: Share,
}

/// A network that the payload is in, or wants to be in.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    /// The address it asked for, or has now.
    pub(crate) ip: IpAddr,
    /// Its member, while the roster has one.
    pub(crate) member: Option<MemberId>,
    /// Its vNIC on the data path.
    pub(crate) port: Option<PortId>,
    /// What the ExeUnit was told last.
    pub(crate) told: Option<NetworkConfig>,
    /// Whether a vNIC was ever there: from then on changes of the roster are passed on.
    pub(crate) live: bool,
}

/// Resources of one activity.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    pub(crate) cpu_cores: f64,
    pub(crate) mem_gib: f64,
    pub(crate) storage_gib: f64,
}

impl Hosted {
    pub(crate) fn new(info: ActivityInfo, share: Share) -> Self {
        let log = Log::new();
        log.push(state_update(&info));
        Self {
            info: Mutex::new(info),
            log,
            unit: Mutex::default(),
            joined: Mutex::default(),
            batches: Mutex::default(),
            usage: watch::Sender::new(gvpn_exeunit::Usage::default()),
            carried: Mutex::default(),
            share,
        }
    }

    pub(crate) fn info(&self) -> ActivityInfo {
        self.info.lock().clone()
    }

    pub(crate) fn unit(&self) -> Option<Arc<ExeUnit>> {
        self.unit.lock().clone()
    }

    pub(crate) fn set_unit(&self, unit: ExeUnit) {
        *self.unit.lock() = Some(Arc::new(unit));
    }

    /// Takes the ExeUnit's word for its state, except about the end: that is noted when it is gone.
    pub(crate) fn set_state(&self, state: StatePair) {
        let mut info = self.info.lock();
        if info.is_over() || state.0 == ActivityState::Terminated {
            return;
        }
        info.state = state;
        self.log.push(state_update(&info));
    }

    /// It has ended: nothing of it runs any more. Says whether it had not before.
    pub(crate) fn end(&self, reason: Option<String>) -> bool {
        self.unit.lock().take();
        let mut info = self.info.lock();
        if info.is_over() {
            return false;
        }
        info.end(reason);
        self.log.push(state_update(&info));
        self.log.close();
        true
    }

    /// Notes a batch; says whether it is new.
    pub(crate) fn add_batch(&self, batch: BatchId) -> bool {
        self.batches.lock().insert(batch)
    }

    /// What its ExeUnit says it has used by now, when it says so in time; else what is known.
    pub(crate) async fn measure(&self) -> gvpn_exeunit::Usage {
        let mut updates = self.usage.subscribe();
        if let Some(unit) = self.unit() {
            unit.poll_usage();
            let _ = tokio::time::timeout(USAGE_WAIT, updates.changed()).await;
        }
        *self.usage.borrow()
    }

    pub(crate) fn set_usage(&self, usage: gvpn_exeunit::Usage) {
        self.usage.send_replace(usage);
    }

    /// Logs a command that failed before it reached the ExeUnit; the batch ends with it.
    pub(crate) fn fail_command(&self, batch: BatchId, command: &ExeCommand, message: String) {
        let (timestamp, index) = (Utc::now(), 0);
        let command = serde_json::to_value(command).unwrap_or_default();
        let event =
            |kind| ActivityUpdate::Event(BatchEvent { batch_id: batch, index, timestamp, kind });
        self.log.push(event(BatchEventKind::Started { command }));
        let message = Some(message);
        let kind = BatchEventKind::Finished { return_code: 1, message: message.clone() };
        self.log.push(event(kind));
        let result = CommandResult {
            index,
            event_date: timestamp,
            result: ResultKind::Error,
            stdout: None,
            stderr: None,
            message,
            is_batch_finished: true,
        };
        self.log.push(ActivityUpdate::Result { batch, result });
    }
}

fn state_update(info: &ActivityInfo) -> ActivityUpdate {
    ActivityUpdate::State { state: info.state, reason: info.reason.clone(), at: Utc::now() }
}
