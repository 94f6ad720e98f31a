//! Who the daemon is and which version it claims, as Golem's clients ask first of all.

use axum::{Extension, Json, extract::State};
use gvpn_model::NodeId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{ApiState, AppKeyName};

/// The version whose APIs we serve; clients refuse what they take for too old.
const COMPATIBLE: &str = "0.17.6";

/// When that was, as clients read it.
const RELEASED: &str = "2025-08-01T00:00:00";

#[derive(Debug, Serialize, ToSchema)]
struct Me {
    identity: NodeId,
    /// The app key's name.
    name: String,
    role: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct VersionInfo {
    current: Release,
    /// None is ever pending here.
    pending: Option<Release>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Release {
    version: &'static str,
    name: String,
    seen: bool,
    release_ts: &'static str,
    insertion_ts: &'static str,
    update_ts: Option<&'static str>,
}

/// `/me` and `/version/get`.
pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(me)).routes(routes!(version))
}

/// Who asks: the node's identity and the name of the app key.
#[utoipa::path(get, path = "/me", tag = "identity", responses((status = 200, body = Me)))]
async fn me(State(state): State<ApiState>, Extension(key): Extension<AppKeyName>) -> Json<Me> {
    Json(Me { identity: state.node.id(), name: key.0, role: "manager" })
}

/// The version that clients take this daemon for. No key is needed.
#[utoipa::path(
    get, path = "/version/get", tag = "identity", security(()),
    responses((status = 200, body = VersionInfo))
)]
async fn version() -> Json<VersionInfo> {
    Json(VersionInfo {
        current: Release {
            version: COMPATIBLE,
            name: format!("Golem VPN {}", env!("CARGO_PKG_VERSION")),
            seen: false,
            release_ts: RELEASED,
            insertion_ts: RELEASED,
            update_ts: None,
        },
        pending: None,
    })
}
