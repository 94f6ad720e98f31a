//! The gate: WebSockets into a network.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Extension, Json,
    extract::{ConnectInfo, State},
    http::StatusCode,
    response::Response,
};
use gvpn_gate::{BridgeOptions, ClientSocket, ConnectError, ConnectionInfo, Protocol};
use serde::Serialize;
use utoipa::ToSchema;

use super::network_id;
use crate::{ApiError, ApiPath, ApiResult, ApiState, error::Fault, extract::ApiUpgrade};

/// Whose socket a request is on.
type Client = Option<Extension<ConnectInfo<ClientSocket>>>;

/// A connection that is open through the gate.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionRow {
    /// IP protocol: 6 for TCP, 255 for raw frames.
    protocol: u16,
    /// The requestor's end.
    local_ip: String,
    local_port: u16,
    /// The payload's end.
    remote_ip: String,
    remote_port: u16,
}

impl From<ConnectionInfo> for ConnectionRow {
    fn from(info: ConnectionInfo) -> Self {
        Self {
            protocol: match info.protocol {
                Protocol::Tcp => 6,
                Protocol::Raw => 255,
            },
            local_ip: info.local.ip().to_string(),
            local_port: info.local.port(),
            remote_ip: info.remote.ip().to_string(),
            remote_port: info.remote.port(),
        }
    }
}

/// Connections that are open through the gate.
#[utoipa::path(
    get, path = "/net/{id}/tcp", tag = "gate", params(("id" = String, Path)),
    responses((status = 200, body = Vec<ConnectionRow>), (status = 404, body = Fault))
)]
pub(crate) async fn connections(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Vec<ConnectionRow>>> {
    let connections = state.node.networks().connections(network_id(&id)?).await?;
    Ok(Json(connections.into_iter().map(ConnectionRow::from).collect()))
}

/// A TCP connection to a payload, as a WebSocket. The connection stands before the upgrade is
/// answered; a failure is an HTTP status.
#[utoipa::path(
    get, path = "/net/{id}/tcp/{ip}/{port}", tag = "gate",
    params(("id" = String, Path), ("ip" = String, Path), ("port" = u16, Path)),
    responses(
        (status = 101, description = "Connected"), (status = 404, body = Fault),
        (status = 502, body = Fault, description = "Refused by the payload"),
        (status = 504, body = Fault, description = "No answer, or unreachable")
    )
)]
pub(crate) async fn tcp(
    State(state): State<ApiState>,
    ApiPath((id, ip, port)): ApiPath<(String, String, String)>,
    client: Client,
    upgrade: Result<ApiUpgrade, ApiError>,
) -> ApiResult<Response> {
    let network = network_id(&id)?;
    let networks = state.node.networks();
    networks.get(network)?;
    let remote = SocketAddr::new(address(&ip)?, port_number(&port)?);
    let upgrade = upgrade?.0;
    networks.check_remote(network, remote)?;
    let gateway = networks.gateway(network).await?;
    let connection = gateway.connect(remote, None).await.map_err(refused)?;
    let client = socket(client);
    Ok(gvpn_gate::upgrade(upgrade).on_upgrade(async move |socket| {
        let ended =
            gvpn_gate::bridge_tcp(socket, connection, &client, BridgeOptions::default()).await;
        tracing::debug!(%network, %remote, ?ended, "gate connection");
    }))
}

/// Ethernet frames between an address of the owner and one of a member, as a WebSocket: a binary
/// message is a frame.
#[utoipa::path(
    get, path = "/net/{id}/raw/from/{src}/to/{dst}", tag = "gate",
    params(("id" = String, Path), ("src" = String, Path), ("dst" = String, Path)),
    responses(
        (status = 101, description = "Connected"), (status = 403, body = Fault),
        (status = 404, body = Fault)
    )
)]
pub(crate) async fn raw(
    State(state): State<ApiState>,
    ApiPath((id, from, to)): ApiPath<(String, String, String)>,
    client: Client,
    upgrade: Result<ApiUpgrade, ApiError>,
) -> ApiResult<Response> {
    let network = network_id(&id)?;
    let networks = state.node.networks();
    networks.get(network)?;
    let (local, remote) = (address(&from)?, address(&to)?);
    let upgrade = upgrade?.0;
    let gateway = networks.gateway(network).await?;
    let (frames, tap) = networks.tap(network, local, remote)?;
    let guard = gateway.raw(local, remote);
    let client = socket(client);
    let upgrade = upgrade.max_message_size(gvpn_gate::RAW_FRAME_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        let options = BridgeOptions::default();
        let ended = gvpn_gate::bridge_raw(socket, frames, guard, &client, options).await;
        tracing::debug!(%network, %local, %remote, ?ended, "raw connection");
        drop(tap);
    }))
}

fn address(text: &str) -> ApiResult<IpAddr> {
    text.parse().map_err(|_| ApiError::bad_request(format!("`{text}` is not an IP address")))
}

fn port_number(text: &str) -> ApiResult<u16> {
    text.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| ApiError::bad_request(format!("`{text}` is not a port (1 to 65535)")))
}

fn socket(client: Client) -> ClientSocket {
    client.map_or_else(ClientSocket::unknown, |Extension(ConnectInfo(socket))| socket)
}

fn refused(error: ConnectError) -> ApiError {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    ApiError::new(status, error)
}
