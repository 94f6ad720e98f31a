//! The OpenAPI document. Routes and their descriptions are registered in one, so that neither can be
//! without the other; what holds for all of them is added here.

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        Content, OpenApi as Document, PathItem, Ref, RefOr, Response,
        path::Operation,
        schema::{ObjectBuilder, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::{ApiState, error::Fault};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Golem VPN",
        description = "Golem's APIs for networks, activities, market and payment, and what this daemon adds to them under `/gvpn/v1`."
    ),
    components(schemas(Fault)),
    security(("appKey" = []))
)]
struct Root;

/// A router for described routes to be added to.
pub(crate) fn root() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(Root::openapi())
}

/// The routes, and the whole document about them.
pub(crate) fn describe(routes: OpenApiRouter<ApiState>) -> (Router<ApiState>, Document) {
    let (routes, mut document) = routes.split_for_parts();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("appKey", SecurityScheme::Http(scheme));
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            complete(operation, method, path);
        }
    }
    (routes, document)
}

/// `/openapi.json`.
pub(crate) fn router(document: &Document) -> Router<ApiState> {
    let text = document.to_json().unwrap_or_default();
    let document = axum::body::Bytes::from(text);
    Router::new()
        .route("/openapi.json", get(async move || ([(CONTENT_TYPE, "application/json")], document)))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// An id that is unique also where handlers are mounted twice; `null` where success has nothing to
/// say; and the one form that all errors have.
fn complete(operation: &mut Operation, method: &str, path: &str) {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<_> = std::iter::once(method).chain(words).collect();
    operation.operation_id = Some(words.join("_"));
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        let RefOr::T(response) = response else { continue };
        if !response.content.is_empty() {
            continue;
        }
        match status.as_str() {
            "200" => json(response, null()),
            status if status.starts_with(['4', '5']) => json(response, fault()),
            _ => {}
        }
    }
    let mut other = Response::new("What went wrong");
    json(&mut other, fault());
    responses.insert("default".to_owned(), RefOr::T(other));
}

fn json(response: &mut Response, schema: RefOr<utoipa::openapi::Schema>) {
    let content = Content::new(Some(schema));
    response.content.insert("application/json".to_owned(), RefOr::T(content));
}

fn null() -> RefOr<utoipa::openapi::Schema> {
    ObjectBuilder::new().schema_type(Type::Null).into()
}

fn fault() -> RefOr<utoipa::openapi::Schema> {
    RefOr::Ref(Ref::from_schema_name(Fault::name()))
}
