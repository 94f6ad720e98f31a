//! The REST and WebSocket surface: Net API v1 and v2, Activity API, and the additions, with their OpenAPI document.

mod error;
mod state;

pub mod golem;

use std::net::SocketAddr;

use axum::Router;
use gvpn_node::Node;

pub use error::{ApiError, ApiResult};
pub use state::ApiState;

/// Everything the daemon serves over HTTP.
pub fn router(node: Node) -> Router {
    let state = ApiState::new(node);
    golem::router(&state).with_state(state)
}

/// Serves [`router`] on `listen` until the future is dropped; `ready` is told the bound address.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    node: Node,
    listen: SocketAddr,
    ready: impl FnOnce(SocketAddr),
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    ready(listener.local_addr()?);
    axum::serve(listener, router(node)).await
}
