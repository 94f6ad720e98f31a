//! A gate over loopback: a real HTTP server, real sockets, real WebSocket clients.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{ConnectInfo, Path, State, ws::WebSocketUpgrade},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::any,
};
use gvpn_gate::{
    BridgeOptions, ClientSocket, Dial, EOF_PROTOCOL, Ended, GateStream, Gateway, GatewayOptions,
    bridge_tcp, upgrade,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, client::IntoClientRequest},
};

pub(crate) type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Loopback, with two ports for what loopback cannot show: 1 is unreachable, 2 never answers.
struct Loopback;

impl Dial for Loopback {
    fn dial(
        &self,
        remote: SocketAddr,
        _from: Option<IpAddr>,
    ) -> Pin<Box<dyn Future<Output = io::Result<GateStream>> + Send + '_>> {
        Box::pin(async move {
            match remote.port() {
                1 => Err(io::ErrorKind::HostUnreachable.into()),
                2 => std::future::pending().await,
                _ => TcpStream::connect(remote).await.map(GateStream::from),
            }
        })
    }
}

/// The gate, a payload's listener behind it, and what became of the bridges.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) payload: TcpListener,
    pub(crate) ended: mpsc::UnboundedReceiver<Ended>,
    api: SocketAddr,
}

#[derive(Clone)]
struct Api {
    gateway: Gateway,
    options: BridgeOptions,
    ask_kernel: bool,
    ended: mpsc::UnboundedSender<Ended>,
}

impl Api {
    fn client(&self, socket: ClientSocket) -> ClientSocket {
        if self.ask_kernel { socket } else { ClientSocket::unknown() }
    }
}

impl World {
    pub(crate) async fn new(options: BridgeOptions) -> Self {
        Self::build(options, true).await
    }

    /// A gate that cannot ask the kernel about its clients.
    pub(crate) async fn without_kernel(options: BridgeOptions) -> Self {
        Self::build(options, false).await
    }

    async fn build(options: BridgeOptions, ask_kernel: bool) -> Self {
        let limits =
            GatewayOptions { connect_timeout: Duration::from_secs(2), max_connections: 64 };
        let gateway = Gateway::new(Loopback, limits);
        let (sender, ended) = mpsc::unbounded_channel();
        let api = Api { gateway: gateway.clone(), options, ask_kernel, ended: sender };
        let router = Router::new().route("/tcp/{remote}", any(serve)).with_state(api);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = listener.local_addr().unwrap();
        let service = router.into_make_service_with_connect_info::<ClientSocket>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let payload = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { gateway, payload, ended, api }
    }

    /// A client and the payload's end of its connection.
    pub(crate) async fn connect(&self) -> (Client, TcpStream) {
        self.connect_with(None).await
    }

    /// The same in the half-close protocol.
    pub(crate) async fn connect_half_close(&self) -> (Client, TcpStream) {
        self.connect_with(Some(EOF_PROTOCOL)).await
    }

    async fn connect_with(&self, protocol: Option<&'static str>) -> (Client, TcpStream) {
        let remote = self.payload.local_addr().unwrap();
        let mut request = self.url(remote).into_client_request().unwrap();
        if let Some(protocol) = protocol {
            request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        }
        let (client, accepted) = tokio::join!(connect_async(request), self.payload.accept());
        (client.unwrap().0, accepted.unwrap().0)
    }

    /// The HTTP status of an attempt that must fail, and its body.
    pub(crate) async fn refusal(&self, remote: SocketAddr) -> (u16, String) {
        match connect_async(self.url(remote)).await {
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                (response.status().as_u16(), String::from_utf8(body).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits until no connection is listed.
    pub(crate) async fn empty(&self) {
        wait_for("an empty connection table", || self.gateway.connections().is_empty()).await;
    }

    fn url(&self, remote: SocketAddr) -> String {
        format!("ws://{}/tcp/{remote}", self.api)
    }
}

pub(crate) async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(
    State(api): State<Api>,
    Path(remote): Path<SocketAddr>,
    ConnectInfo(client): ConnectInfo<ClientSocket>,
    request: WebSocketUpgrade,
) -> Response {
    match api.gateway.connect(remote, None).await {
        Err(e) => {
            let status = StatusCode::from_u16(e.status()).unwrap();
            (status, e.to_string()).into_response()
        }
        Ok(connection) => upgrade(request).on_upgrade(move |socket| async move {
            let ended = bridge_tcp(socket, connection, &api.client(client), api.options).await;
            let _ = api.ended.send(ended);
        }),
    }
}
