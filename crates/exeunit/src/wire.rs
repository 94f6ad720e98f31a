//! What a daemon and its ExeUnit say to each other.

use gvpn_model::{BatchEvent, BatchId, CommandResult, ExeScript, MemberId, NetworkId, StatePair};
use gvpn_runtime::{NetworkConfig, Usage};
use gvpn_vnic::NicKind;
use serde::{Deserialize, Serialize};

use crate::ExeUnitConfig;

/// From the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// The first message. A pipe travels beside it that nobody writes to: its end tells the daemon
    /// that the last process of the activity has gone.
    Setup(Box<ExeUnitConfig>),
    Exec {
        batch: BatchId,
        script: ExeScript,
        networks: Vec<NetworkConfig>,
    },
    Configure(NetworkConfig),
    RemoveNetwork(NetworkId),
    PollUsage,
    Terminate(Option<String>),
    /// The answer to the [`Request`] of this number.
    Reply {
        id: u64,
        outcome: Result<Option<String>, String>,
    },
}

/// To the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The first message.
    Up,
    State(StatePair),
    Batch(BatchEvent),
    Result {
        batch: BatchId,
        result: CommandResult,
    },
    Detach {
        network: NetworkId,
        member: MemberId,
    },
    Usage(Usage),
    Request {
        id: u64,
        request: Request,
    },
    /// The last message: why it ends.
    Ended(Option<String>),
}

/// Something that the daemon does for its ExeUnit; descriptors travel beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Attach { network: NetworkId, member: MemberId, kind: NicKind },
    Fetch { url: String },
    Store { url: String },
    Sign { digest: [u8; 32] },
}
