//! What can go wrong between nodes.

use gvpn_model::NodeId;

/// Why something could not be done over Golem Net.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Sockets, threads or keys could not be set up.
    #[error("Golem Net cannot start: {0}")]
    Start(String),
    /// No address of the node is known.
    #[error("node {node} is unknown: {reason}")]
    UnknownNode {
        /// The node.
        node: NodeId,
        /// Where it was looked for.
        reason: String,
    },
    /// The node's addresses are known but it does not answer.
    #[error("node {node} does not answer: {reason}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What was tried.
        reason: String,
    },
    /// The node answers but does not serve this.
    #[error("node {node} refused service `{service}`: {reason}")]
    Refused {
        /// The node.
        node: NodeId,
        /// The service asked for.
        service: String,
        /// Its reason.
        reason: String,
    },
    /// The connection ended.
    #[error("the connection to node {node} ended: {reason}")]
    Closed {
        /// The node.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A message that does not fit, or is not what the protocol says.
    #[error("message from or to node {node}: {reason}")]
    Message {
        /// The node.
        node: NodeId,
        /// What is wrong with it.
        reason: String,
    },
}
