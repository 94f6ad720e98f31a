//! Real nodes on loopback, each with its API on a real socket.

mod contract;

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use gvpn_identity::Identity;
use gvpn_model::NodeId;
use gvpn_node::{Node, NodeConfig, ProviderPolicy};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Bytes, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tempfile::TempDir;

use contract::Contract;

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node and its API.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) key: String,
    pub(crate) api: SocketAddr,
    identity: Identity,
    provider: Option<ProviderPolicy>,
    dir: Arc<TempDir>,
    relays: Vec<SocketAddr>,
    server: tokio::task::JoinHandle<()>,
    http: Client<HttpConnector, Full<Bytes>>,
    contract: Contract,
}

/// A status and a JSON body.
pub(crate) type Answer = (u16, Value);

#[allow(dead_code, reason = "each test crate uses a part")]
impl World {
    pub(crate) async fn requestor() -> Self {
        Self::fresh(None, Vec::new()).await
    }

    pub(crate) async fn provider(policy: ProviderPolicy) -> Self {
        Self::fresh(Some(policy), Vec::new()).await
    }

    /// A node that registers with a relay.
    pub(crate) async fn registered(provider: Option<ProviderPolicy>, relay: SocketAddr) -> Self {
        Self::fresh(provider, vec![relay]).await
    }

    async fn fresh(provider: Option<ProviderPolicy>, relays: Vec<SocketAddr>) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::start(Identity::generate(), provider, dir, ([127, 0, 0, 1], 0).into(), relays).await
    }

    async fn start(
        identity: Identity,
        provider: Option<ProviderPolicy>,
        dir: Arc<TempDir>,
        listen: SocketAddr,
        relays: Vec<SocketAddr>,
    ) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let mut config = NodeConfig::new(dir.path().join("data"), identity.clone());
        config.listen = vec![listen];
        config.workers = 1;
        // This program is no `gvpn`: it can neither open a gate nor run a payload.
        config.gates_ahead = 0;
        config.try_runtimes = false;
        config.provider = provider.clone();
        config.relays.clone_from(&relays);
        let node = Node::start(config).await.unwrap();
        let key = "the-key-of-this-test".to_owned();
        node.keys().import("test", &key).unwrap();
        let (ready, bound) = tokio::sync::oneshot::channel();
        let served = node.clone();
        let server = tokio::spawn(async move {
            let listen = ([127, 0, 0, 1], 0).into();
            let _ = gvpn_api::serve(served, listen, |addr| ready.send(addr).unwrap()).await;
        });
        let api = bound.await.unwrap();
        let http = Client::builder(TokioExecutor::new()).build_http();
        let (document, _) =
            fetch(&http, Request::get(format!("http://{api}/openapi.json")), None).await;
        let contract = Contract::new(document.1);
        Self { node, key, api, identity, provider, dir, relays, server, http, contract }
    }

    /// Stops and starts again with the same state, at the same address.
    pub(crate) async fn restart(self) -> Self {
        let Self { node, server, http, identity, provider, dir, relays, .. } = self;
        let listen = node.status().listen[0];
        node.stop().await;
        server.abort();
        let _ = server.await;
        drop((node, http));
        // Connections of the HTTP server end a moment later, and the node with the last of them.
        eventually("the address is free", async || UdpSocket::bind(listen).is_ok()).await;
        Self::start(identity, provider, dir, listen, relays).await
    }

    pub(crate) fn id(&self) -> NodeId {
        self.node.id()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes two nodes known to each other.
    pub(crate) fn introduce(&self, other: &World) {
        self.node.net().add_peer_addrs(other.id(), other.node.status().listen);
        other.node.net().add_peer_addrs(self.id(), self.node.status().listen);
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body.to_string())).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(body.to_string())).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<String>) -> Answer {
        let auth = format!("Bearer {}", self.key);
        self.raw(method, path, body, Some(&auth)).await
    }

    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        auth: Option<&str>,
    ) -> Answer {
        let mut request =
            Request::builder().method(&method).uri(format!("http://{}{path}", self.api));
        if let Some(auth) = auth {
            request = request.header(header::AUTHORIZATION, auth);
        }
        let ((status, value), kind) = fetch(&self.http, request, body.clone()).await;
        if status >= 300 {
            assert!(value["message"].is_string(), "{status} {path}: {value}");
        }
        let body = body.and_then(|body| serde_json::from_str(&body).ok());
        self.contract.check(method.as_str(), path, body.as_ref(), status, &kind, &value);
        (status, value)
    }

    /// The daemon's OpenAPI document.
    pub(crate) fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Makes a network and returns its id.
    pub(crate) async fn network(&self, ip: &str) -> String {
        let (status, network) = self.post("/net-api/v1/net", serde_json::json!({ "ip": ip })).await;
        assert_eq!(status, 200, "{network}");
        network["id"].as_str().unwrap().to_owned()
    }
}

/// The answer to a request; what is no JSON is a text.
/// The answer to a request, and its content type.
async fn fetch(
    http: &Client<HttpConnector, Full<Bytes>>,
    request: hyper::http::request::Builder,
    body: Option<String>,
) -> (Answer, String) {
    let request = request.body(Full::from(body.unwrap_or_default())).unwrap();
    let response = http.request(request).await.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.map_or_else(String::new, |kind| kind.to_str().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body);
    let value = serde_json::from_slice(&body).unwrap_or_else(|_| Value::from(text.as_ref()));
    ((status, value), kind)
}

/// Waits until `condition` holds.
#[allow(dead_code, reason = "each test crate uses a part")]
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
