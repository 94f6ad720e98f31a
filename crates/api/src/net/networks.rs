//! Networks, the owner's addresses, and nodes.

use axum::{Json, extract::State};
use gvpn_model::{NodeId, addressing};
use gvpn_node::{NetworkInfo, NetworkSpec, NodeRow};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::network_id;
use crate::{ApiError, ApiJson, ApiPath, ApiResult, ApiState, error::Fault};

/// What a new network shall be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewNetwork {
    /// CIDR, or an address with `mask`.
    #[schema(example = "192.168.0.0/24")]
    ip: String,
    /// Dotted mask for a bare `ip`; 255.255.255.0 when missing.
    mask: Option<String>,
    /// Gateway; the first host when missing.
    gateway: Option<String>,
}

/// A network.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Network {
    /// 32 hexadecimal digits.
    id: String,
    /// CIDR.
    ip: String,
    /// Dotted mask.
    mask: String,
    /// Gateway.
    gateway: String,
}

/// An address.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Address {
    /// In requests an address, alone or in CIDR form; in answers CIDR.
    ip: String,
}

/// An address of a node.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct NodeAddress {
    /// The node's id.
    #[schema(example = "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf")]
    id: String,
    /// Its address.
    ip: String,
}

impl From<NetworkInfo> for Network {
    fn from(info: NetworkInfo) -> Self {
        let prefix = info.prefixes.first();
        let text = |value: Option<String>| value.unwrap_or_default();
        Self {
            id: info.id.to_string(),
            ip: text(prefix.map(ToString::to_string)),
            mask: text(prefix.map(|prefix| prefix.netmask().to_string())),
            gateway: text(info.gateways.first().map(ToString::to_string)),
        }
    }
}

impl From<IpNet> for Address {
    fn from(ip: IpNet) -> Self {
        Self { ip: ip.to_string() }
    }
}

impl From<NodeRow> for NodeAddress {
    fn from(row: NodeRow) -> Self {
        Self { id: row.id.to_string(), ip: row.ip.to_string() }
    }
}

/// Networks of this identity.
#[utoipa::path(get, path = "/net", tag = "net", responses((status = 200, body = Vec<Network>)))]
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Network>> {
    Json(state.node.networks().list().into_iter().map(Network::from).collect())
}

/// Makes a network.
#[utoipa::path(
    post, path = "/net", tag = "net", request_body = NewNetwork,
    responses((status = 200, body = Network), (status = 400, body = Fault))
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewNetwork>,
) -> ApiResult<Json<Network>> {
    let NewNetwork { ip, mask, gateway } = new;
    let spec = NetworkSpec { ip, mask, gateway, ..NetworkSpec::default() };
    Ok(Json(state.node.networks().create(&spec)?.into()))
}

/// One network.
#[utoipa::path(
    get, path = "/net/{id}", tag = "net", params(("id" = String, Path)),
    responses(
        (status = 200, body = Network), (status = 403, body = Fault), (status = 404, body = Fault)
    )
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Network>> {
    Ok(Json(state.node.networks().get(network_id(&id)?)?.into()))
}

/// Removes a network.
#[utoipa::path(
    delete, path = "/net/{id}", tag = "net", params(("id" = String, Path)),
    responses((status = 200), (status = 403, body = Fault), (status = 404, body = Fault))
)]
pub(super) async fn remove(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<()>> {
    state.node.networks().remove(network_id(&id)?).await?;
    Ok(Json(()))
}

/// The owner's own addresses.
#[utoipa::path(
    get, path = "/net/{id}/addresses", tag = "net", params(("id" = String, Path)),
    responses((status = 200, body = Vec<Address>), (status = 404, body = Fault))
)]
pub(super) async fn addresses(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Vec<Address>>> {
    let addresses = state.node.networks().addresses(network_id(&id)?)?;
    Ok(Json(addresses.into_iter().map(Address::from).collect()))
}

/// Gives the owner an address; the first replaces the automatic one.
#[utoipa::path(
    post, path = "/net/{id}/addresses", tag = "net", params(("id" = String, Path)),
    request_body = Address,
    responses((status = 200), (status = 400, body = Fault), (status = 409, body = Fault))
)]
pub(super) async fn add_address(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(address): ApiJson<Address>,
) -> ApiResult<Json<()>> {
    state.node.networks().add_address(network_id(&id)?, &address.ip).await?;
    Ok(Json(()))
}

/// Every address of every node.
#[utoipa::path(
    get, path = "/net/{id}/nodes", tag = "net", params(("id" = String, Path)),
    responses((status = 200, body = Vec<NodeAddress>), (status = 404, body = Fault))
)]
pub(super) async fn nodes(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Vec<NodeAddress>>> {
    let rows = state.node.networks().nodes(network_id(&id)?)?;
    Ok(Json(rows.into_iter().map(NodeAddress::from).collect()))
}

/// Adds a node with an address. Repeating it changes nothing; the own node's id gives the owner
/// an address.
#[utoipa::path(
    post, path = "/net/{id}/nodes", tag = "net", params(("id" = String, Path)),
    request_body = NodeAddress,
    responses((status = 200), (status = 400, body = Fault), (status = 409, body = Fault))
)]
pub(super) async fn add_node(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(row): ApiJson<NodeAddress>,
) -> ApiResult<Json<()>> {
    let network = network_id(&id)?;
    state.node.networks().get(network)?;
    let node: NodeId = row.id.trim().parse().map_err(ApiError::bad_request)?;
    addressing::parse_host(&row.ip).map_err(ApiError::bad_request)?;
    state.node.networks().add_node(network, node, &row.ip).await?;
    Ok(Json(()))
}

/// Removes a node with all its addresses.
#[utoipa::path(
    method(delete, post), path = "/net/{id}/nodes/{node}", tag = "net",
    params(("id" = String, Path), ("node" = String, Path)),
    responses((status = 200), (status = 400, body = Fault), (status = 404, body = Fault))
)]
pub(super) async fn remove_node(
    State(state): State<ApiState>,
    ApiPath((id, node)): ApiPath<(String, String)>,
) -> ApiResult<Json<()>> {
    let network = network_id(&id)?;
    state.node.networks().get(network)?;
    let node: NodeId = node.parse().map_err(ApiError::bad_request)?;
    state.node.networks().remove_node(network, node).await?;
    Ok(Json(()))
}
