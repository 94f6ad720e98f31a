//! Who may use the API: whoever shows an app key.

use axum::{
    extract::{Request, State},
    http::{StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{ApiError, ApiState};

/// What may be read without a key.
const OPEN: [&str; 2] = ["/version/get", "/openapi.json"];
/// Images may be read without a key, too: Golem's clients ask registries without.
const OPEN_BELOW: &str = "/registry/";

/// The name of the app key that a request showed; in the request's extensions.
#[derive(Debug, Clone)]
pub struct AppKeyName(pub String);

/// Lets requests through that show a key: `Authorization: Bearer KEY`, or `?authToken=KEY` where a
/// client cannot set headers (browsers' WebSockets).
pub(crate) async fn require_key(
    State(state): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if !OPEN.contains(&path) && !path.starts_with(OPEN_BELOW) {
        let shown = bearer(&request).or_else(|| token(&request));
        match shown.map(|key| state.node.keys().check(&key)) {
            Some(Some(key)) => {
                request.extensions_mut().insert(AppKeyName(key.name));
            }
            Some(None) => return refusal("the app key is not known here"),
            None => return refusal("no app key: send `Authorization: Bearer KEY`"),
        }
    }
    next.run(request).await
}

fn bearer(request: &Request) -> Option<String> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_owned())
}

fn token(request: &Request) -> Option<String> {
    let query = request.uri().query()?;
    let pair = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pair.into_iter().find(|(name, _)| *name == "authToken")?;
    Some(percent_decoded(value))
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (bytes[at], hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn refusal(message: &str) -> Response {
    ApiError::new(StatusCode::UNAUTHORIZED, message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, header: Option<&str>) -> Request {
        let mut request = Request::builder().uri(uri);
        if let Some(value) = header {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn keys_are_found_where_clients_put_them() {
        assert_eq!(bearer(&request("/", Some("Bearer abc"))).as_deref(), Some("abc"));
        assert_eq!(bearer(&request("/", Some("bearer  abc "))).as_deref(), Some("abc"));
        assert_eq!(bearer(&request("/", Some("Basic abc"))), None);
        assert_eq!(token(&request("/a?x=1&authToken=a%2Fb%", None)).as_deref(), Some("a/b%"));
        assert_eq!(token(&request("/a?authtoken=no", None)), None);
    }
}
