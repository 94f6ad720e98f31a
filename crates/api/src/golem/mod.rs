//! Golem's other APIs: market, payment, identity, version, GSB and registry.

use axum::Router;
use gvpn_node::Node;

use crate::ApiState;

/// What these APIs keep beside the node.
pub struct GolemState {}

impl GolemState {
    /// Made once for a node, before its API is served.
    pub fn new(_node: &Node) -> Self {
        Self {}
    }
}

/// Their routes, by full path. Everything except `/version/get` is behind the app key.
pub fn router(_state: &ApiState) -> Router<ApiState> {
    Router::new()
}
