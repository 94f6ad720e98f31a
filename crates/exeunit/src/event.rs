//! What an ExeUnit tells its daemon.

use std::os::fd::OwnedFd;

use gvpn_model::{BatchEvent, BatchId, CommandResult, MemberId, NetworkId, StatePair};
use gvpn_runtime::Usage;
use gvpn_vnic::Nic;
use tokio::sync::oneshot;

/// Where the daemon answers a request of its ExeUnit; the text of an error reaches the requestor.
pub type Reply = oneshot::Sender<Result<(), String>>;

/// Where the daemon answers with a signature, as text.
pub type SignReply = oneshot::Sender<Result<String, String>>;

/// Something an ExeUnit reports or asks for.
#[derive(Debug)]
pub enum ExeUnitEvent {
    /// The activity's state changed.
    State(StatePair),
    /// Something happened in a running batch.
    Batch(BatchEvent),
    /// A command of a batch ended.
    Result {
        /// The batch.
        batch: BatchId,
        /// How it ended.
        result: CommandResult,
    },
    /// Attach this vNIC to the data path.
    AttachNic {
        /// The network it belongs to.
        network: NetworkId,
        /// The payload's member.
        member: MemberId,
        /// The vNIC.
        nic: Nic,
        /// Answer when packets flow.
        reply: Reply,
    },
    /// The vNIC of this network is about to go: detach it.
    DetachNic {
        /// The network it belonged to.
        network: NetworkId,
        /// The payload's member.
        member: MemberId,
    },
    /// Write the file that `url` (`gftp://..`) names into `file`, from its present position.
    FetchFile {
        /// The file.
        url: String,
        /// Open for writing.
        file: OwnedFd,
        /// Answer when all is written.
        reply: Reply,
    },
    /// Send `file`, from its present position to its end, to where `url` (`gftp://..`) says.
    StoreFile {
        /// The destination.
        url: String,
        /// Open for reading; its length is known.
        file: OwnedFd,
        /// Answer when all is stored.
        reply: Reply,
    },
    /// Sign the digest (SHA3-256) of the results so far.
    Sign {
        /// The digest.
        digest: [u8; 32],
        /// Answer with the signature.
        reply: SignReply,
    },
    /// What the activity has used so far.
    Usage(Usage),
    /// The ExeUnit is gone and nothing of the activity runs any more; the last event.
    Exited {
        /// Why; `None` after an orderly end.
        reason: Option<String>,
    },
}
