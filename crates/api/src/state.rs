//! What every handler is given.

use std::sync::Arc;

use gvpn_node::Node;

use crate::golem::GolemState;

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The node behind the API.
    pub node: Node,
    /// State of the market, payment and file APIs.
    pub golem: Arc<GolemState>,
}

impl ApiState {
    /// The state over `node`.
    pub fn new(node: Node) -> Self {
        let golem = Arc::new(GolemState::new(&node));
        Self { node, golem }
    }
}
