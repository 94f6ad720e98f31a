//! Messages of the roster service.

use gvpn_model::NetworkId;
use serde::{Deserialize, Serialize};

/// From an owner to a member's node, except `Pull`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RosterRequest {
    /// A roster or a change of one; its signed bytes follow in one frame.
    Push {
        /// The network.
        network: NetworkId,
        /// What the frame holds.
        kind: UpdateKind,
    },
    /// The network is gone, or the node is no longer in it.
    Forget {
        /// The network.
        network: NetworkId,
    },
    /// From a member's node to the owner: send me what I missed.
    Pull {
        /// The network.
        network: NetworkId,
        /// What the member has; 0 for nothing.
        epoch: u64,
    },
}

/// What the frame after a [`RosterRequest::Push`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateKind {
    /// A [`gvpn_roster::Snapshot`].
    Snapshot,
    /// A [`gvpn_roster::Delta`].
    Delta,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RosterReply {
    /// The member's node follows this now.
    At {
        /// Its epoch.
        epoch: u64,
        /// Its roster's hash, hexadecimal.
        hash: String,
    },
    /// The change starts from an epoch that the member does not have.
    Need {
        /// What it has; 0 for nothing.
        epoch: u64,
    },
    /// Done; to `Forget` and `Pull`.
    Done,
}
