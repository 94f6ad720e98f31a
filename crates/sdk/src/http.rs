//! HTTP to the daemon: JSON requests, event streams and upgrades.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// The largest answer that is read.
const ANSWER_MAX: usize = 64 << 20;
/// How long an answer may take: longer than the daemon itself waits for a provider.
const PATIENCE: Duration = Duration::from_secs(150);

/// The way to one daemon.
#[derive(Clone)]
pub(crate) struct Http {
    pool: Pool<HttpConnector, Full<Bytes>>,
    base: String,
    key: Option<String>,
}

impl Http {
    pub(crate) fn new(url: &str, key: Option<String>) -> Result<Self, Error> {
        let base = url.trim().trim_end_matches('/').to_owned();
        let parsed: hyper::Uri = base.parse().map_err(|_| Error::Url(url.to_owned()))?;
        if parsed.scheme_str() != Some("http") || parsed.host().is_none() {
            return Err(Error::Url(url.to_owned()));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        Ok(Self { pool, base, key })
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, None::<&()>).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::DELETE, path, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let what = format!("{method} {path}");
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|e| Error::answer(&what, e))?
            .map(Bytes::from);
        let exchange = async {
            let response = self.send(method, path, "application/json", body).await?;
            let limited = Limited::new(response.into_body(), ANSWER_MAX);
            let bytes = limited.collect().await.map_err(|e| Error::answer(&what, e))?.to_bytes();
            let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            serde_json::from_slice(bytes).map_err(|e| Error::answer(&what, e))
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| {
            Err(Error::Timeout(format!("{what}: no answer in {} s", PATIENCE.as_secs())))
        })
    }

    /// Sends a request; an answer that is no success becomes an error with the daemon's message.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(ACCEPT, accept);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|e| Error::answer(path, e))?;
        let response = self
            .pool
            .request(request)
            .await
            .map_err(|e| Error::Unreachable { url: self.base.clone(), reason: root_cause(&e) })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map(|b| b.to_bytes()).unwrap_or_default();
        Err(Error::from_status(status.as_u16(), message(&body)))
    }
}

/// The `message` of an error body, or the body itself.
pub(crate) fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Fault {
        message: String,
    }
    serde_json::from_slice::<Fault>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).trim().to_owned(), |f| f.message)
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
