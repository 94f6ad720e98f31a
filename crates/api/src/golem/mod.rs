//! Golem's other APIs: market, payment, GSB and image registry; and what this daemon adds to them.

mod agreements;
mod answer;
mod documents;
mod gsb;
mod images;
mod market;
mod payment;
mod provider;
mod query;
mod registry;
mod scan;

use gvpn_node::Node;
use utoipa_axum::router::OpenApiRouter;

use crate::ApiState;

/// What these APIs keep beside the node.
pub struct GolemState {
    services: gsb::Services,
}

impl GolemState {
    /// Made once for a node, before its API is served.
    pub fn new(_node: &Node) -> Self {
        Self { services: gsb::Services::default() }
    }
}

/// Their routes, by full path. Everything except the image registry is behind the app key.
pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .nest("/market-api/v1", market::router().merge(agreements::router()).merge(scan::router()))
        .nest("/payment-api/v1", payment::router())
        .nest("/gsb-api/v1", gsb::router())
        .nest("/registry", registry::router())
        .nest("/gvpn/v1", provider::router().merge(images::router()))
}
