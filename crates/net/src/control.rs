//! What two nodes say to each other about their connection: the first stream of each connection
//! carries these messages, each a frame (length as 4 bytes, big-endian) of postcard.

use std::net::SocketAddr;

use gvpn_model::NetworkId;
use serde::{Deserialize, Serialize};

use crate::messages::Last;

/// The service name of the control stream.
pub(crate) const SERVICE: &str = "gvpn.control";

/// This node understands [`Control::Nature`] and [`Control::Guess`].
pub(crate) const KNOWS: u8 = 1;

/// A message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    /// The first message each way.
    Hello {
        /// Whether this node's CPU has AES instructions.
        aes: bool,
        /// What else it understands; see [`KNOWS`]. Older nodes do not say.
        knows: Last<u8>,
    },
    /// I have a place for a lane of this network (or the peer lane): seal for this index.
    Lane {
        /// The network.
        network: Option<NetworkId>,
        /// The sender's index.
        index: u32,
    },
    /// I open what you seal on that lane: use it.
    Ready {
        /// The network.
        network: Option<NetworkId>,
    },
    /// I know no such network, or not that you belong to it.
    Refuse {
        /// The network.
        network: NetworkId,
    },
    /// Addresses where I may be reached. Look for a better way now; so do I.
    Punch {
        /// The addresses.
        addrs: Vec<SocketAddr>,
    },
    /// What my NAT does, by the number of a [`Nature`](gvpn_path::Nature). Only to who knows it.
    Nature {
        /// The number.
        number: u8,
    },
    /// I am ready to guess ports. Only to who knows it.
    Guess,
}
