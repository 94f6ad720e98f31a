//! Who the daemon is and which version it claims, as Golem's clients ask first of all.

use axum::{Extension, Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use crate::{ApiState, AppKeyName};

/// The version whose APIs we serve; clients refuse what they take for too old.
const COMPATIBLE: &str = "0.17.6";

/// `/me` and `/version/get`.
pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/me", get(me)).route("/version/get", get(version))
}

async fn me(State(state): State<ApiState>, Extension(key): Extension<AppKeyName>) -> Json<Value> {
    Json(json!({ "identity": state.node.id().to_string(), "name": key.0, "role": "manager" }))
}

async fn version() -> Json<Value> {
    Json(json!({
        "current": {
            "version": COMPATIBLE,
            "name": format!("Golem VPN {}", env!("CARGO_PKG_VERSION")),
            "seen": false,
            "releaseTs": "2025-08-01T00:00:00",
            "insertionTs": "2025-08-01T00:00:00",
            "updateTs": null,
        },
        "pending": null,
    }))
}
