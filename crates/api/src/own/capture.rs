//! Captures of a network's packets, live.

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use gvpn_model::NodeId;
use gvpn_node::CaptureWish;
use gvpn_switch::capture::Writer;
use serde::Deserialize;

use crate::{ApiError, ApiPath, ApiQuery, ApiResult, ApiState, net::network_id};

/// What to capture.
#[derive(Debug, Deserialize)]
pub(crate) struct Wish {
    #[serde(default)]
    filter: String,
    #[serde(default)]
    snap: u32,
    node: Option<NodeId>,
}

/// Captures packets as pcapng until the client hangs up: at every member's node, where packets
/// start; or with `node` only there, both ways.
#[utoipa::path(
    get, path = "/net/{id}/capture", tag = "policy",
    params(
        ("id" = String, Path), ("filter" = Option<String>, Query), ("snap" = Option<u32>, Query),
        ("node" = Option<String>, Query)
    ),
    responses((status = 200, content_type = "application/x-pcapng"), (status = 400), (status = 404))
)]
pub(crate) async fn capture(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(wish): ApiQuery<Wish>,
) -> ApiResult<Response> {
    let networks = state.node.networks();
    let id = network_id(&id)?;
    let name = networks.get(id)?.name.unwrap_or_else(|| id.to_string());
    let snap = wish.snap as usize;
    let wish = CaptureWish { filter: wish.filter, snap: wish.snap, node: wish.node };
    let mut packets = networks.capture(id, wish)?;
    let mut writer = Writer::start(Vec::new(), &name, snap).map_err(unwritable)?;
    let stream = async_stream::stream! {
        yield Ok::<_, std::io::Error>(Bytes::from(writer.take()));
        while let Some(packet) = packets.next().await {
            writer.packet(packet.time, packet.direction, &packet.bytes, packet.length)?;
            yield Ok(Bytes::from(writer.take()));
        }
    };
    let kind = [(CONTENT_TYPE, "application/x-pcapng")];
    Ok((kind, Body::from_stream(stream)).into_response())
}

fn unwritable(error: std::io::Error) -> ApiError {
    ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, error)
}
