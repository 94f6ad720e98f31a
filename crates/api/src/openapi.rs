//! The OpenAPI document.

use axum::{Json, Router, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{
    ApiState,
    activity::ActivityDoc,
    golem::ProviderDoc,
    net::{NetDoc, StatusDoc},
    own::OwnDoc,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Golem VPN",
        description = "Golem's Net and Activity APIs, and what this daemon adds to them under `/gvpn/v1`."
    ),
    modifiers(&AppKey),
    security(("appKey" = []))
)]
struct Root;

struct AppKey;

impl Modify for AppKey {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("appKey", SecurityScheme::Http(scheme));
    }
}

/// The whole document.
pub(crate) fn document() -> Document {
    Root::openapi()
        .nest("/net-api/v1", NetDoc::openapi())
        .nest("/net-api/v2/vpn", NetDoc::openapi())
        .nest("/net-api/v2/net", StatusDoc::openapi())
        .nest("/activity-api/v1", ActivityDoc::openapi())
        .nest("/gvpn/v1", OwnDoc::openapi())
        .nest("/gvpn/v1", ProviderDoc::openapi())
}

/// `/openapi.json`.
pub(crate) fn router() -> Router<ApiState> {
    Router::new().route("/openapi.json", get(async || Json(document())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_covers_every_mount() {
        let text = super::document().to_json().unwrap();
        for path in [
            "/net-api/v1/net/{id}/nodes",
            "/net-api/v2/vpn/net",
            "/net-api/v2/net/status",
            "/activity-api/v1/activity/{id}/exec/{batch}",
            "/gvpn/v1/net/{id}/members/{member}",
        ] {
            assert!(text.contains(&format!("\"{path}\"")), "{path}");
        }
    }
}
