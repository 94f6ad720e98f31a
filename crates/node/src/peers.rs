//! Requests between nodes, this one included.

use std::{collections::HashMap, io, time::Duration};

use gvpn_model::NodeId;
use gvpn_net::{Net, NetError, Stream};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::either::Either;

use crate::{ErrorKind, NodeError, proto};

/// How long a peer may take to answer a request, unless the request says otherwise.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How often a peer is asked for a sign of life while it is to answer a request; after four times
/// without one it is gone.
const SIGN_OF_LIFE: Duration = Duration::from_millis(1250);
/// Bytes in flight between two services of one node.
const LOCAL_BUFFER: usize = 256 << 10;

/// A stream to a service: of another node, or of this one.
pub(crate) type Channel = Either<Box<Stream>, DuplexStream>;

/// A stream that somebody opened to a service of this node.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) peer: NodeId,
    pub(crate) channel: Channel,
}

/// The way to other nodes' services.
pub(crate) struct Peers {
    net: Net,
    local: Mutex<HashMap<&'static str, mpsc::Sender<Call>>>,
}

impl Peers {
    pub(crate) fn new(net: Net) -> Self {
        Self { net, local: Mutex::default() }
    }

    /// Opens a stream to `service` of `node`.
    pub(crate) async fn open(
        &self,
        node: NodeId,
        service: &'static str,
    ) -> Result<Channel, NodeError> {
        if node != self.net.node_id() {
            return Ok(Either::Left(Box::new(self.net.open(node, service).await?)));
        }
        let (mine, theirs) = tokio::io::duplex(LOCAL_BUFFER);
        let calls = self.local.lock().get(service).cloned();
        let call = Call { peer: node, channel: Either::Right(theirs) };
        match calls {
            Some(calls) if calls.send(call).await.is_ok() => Ok(Either::Right(mine)),
            _ => Err(NodeError::internal(format!("service `{service}` is not running"))),
        }
    }

    /// One request, one answer; the stream stays open for what may follow. A peer that is slow has
    /// until the limit, one that is dead is noticed before.
    pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        node: NodeId,
        service: &'static str,
        request: &Q,
        limit: Duration,
    ) -> Result<(A, Channel), NodeError> {
        let exchange = async {
            let mut channel = self.open(node, service).await?;
            if let Either::Left(stream) = &mut channel {
                stream.keep_alive_every(SIGN_OF_LIFE);
            }
            let answer = exchange(node, &mut channel, request).await?;
            if let Either::Left(stream) = &mut channel {
                stream.let_idle();
            }
            Ok((answer, channel))
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(late(node, limit)))
    }

    /// As [`request`](Self::request), for an answer that may come much later and that nobody waits
    /// for: the peer is not asked for signs of life meanwhile.
    pub(crate) async fn poll<Q: Serialize, A: DeserializeOwned>(
        &self,
        node: NodeId,
        service: &'static str,
        request: &Q,
    ) -> Result<A, NodeError> {
        let exchange = async {
            let mut channel = self.open(node, service).await?;
            exchange(node, &mut channel, request).await
        };
        timeout(ANSWER_LIMIT, exchange).await.unwrap_or_else(|_| Err(late(node, ANSWER_LIMIT)))
    }

    /// One request, one answer.
    pub(crate) async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        node: NodeId,
        service: &'static str,
        request: &Q,
    ) -> Result<A, NodeError> {
        Ok(self.ask(node, service, request, ANSWER_LIMIT).await?.0)
    }

    /// Streams that other nodes, and this one, open to `service`.
    pub(crate) fn serve(&self, service: &'static str) -> mpsc::Receiver<Call> {
        let (calls, receiver) = mpsc::channel(64);
        self.local.lock().insert(service, calls.clone());
        let mut incoming = self.net.serve(service);
        tokio::spawn(async move {
            while let Some(stream) = incoming.recv().await {
                let channel = Either::Left(Box::new(stream.stream));
                if calls.send(Call { peer: stream.peer, channel }).await.is_err() {
                    break;
                }
            }
        });
        receiver
    }
}

/// Notices within seconds when the other end is dead, for a stream that may be silent.
pub(crate) fn keep_alive(channel: &mut Channel) {
    if let Either::Left(stream) = channel {
        stream.keep_alive();
    }
}

impl Call {
    /// Reads the request; what is no request is dropped with a trace.
    pub(crate) async fn request<Q: DeserializeOwned>(&mut self) -> Option<Q> {
        match timeout(ANSWER_LIMIT, proto::receive(&mut self.channel)).await {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => {
                tracing::debug!(peer = %self.peer, %error, "not a request");
                let refusal = NodeError::invalid(format!("the request is not valid: {error}"));
                self.answer::<()>(Err(refusal)).await;
                None
            }
            Err(_) => None,
        }
    }

    /// Answers; more may follow.
    pub(crate) async fn reply<A: Serialize>(
        &mut self,
        answer: &Result<A, NodeError>,
    ) -> io::Result<()> {
        proto::send(&mut self.channel, answer).await
    }

    /// Answers and ends.
    pub(crate) async fn answer<A: Serialize>(&mut self, answer: Result<A, NodeError>) {
        if let Err(error) = self.reply(&answer).await {
            tracing::debug!(peer = %self.peer, %error, "the peer did not take the answer");
        }
        let _ = self.channel.shutdown().await;
    }
}

async fn exchange<Q: Serialize, A: DeserializeOwned>(
    node: NodeId,
    channel: &mut Channel,
    request: &Q,
) -> Result<A, NodeError> {
    proto::send(channel, request).await.map_err(|e| broken(node, &e))?;
    answer(node, channel).await
}

/// Reads the answer to a request.
pub(crate) async fn answer<A: DeserializeOwned>(
    node: NodeId,
    channel: &mut Channel,
) -> Result<A, NodeError> {
    match proto::receive::<Result<A, NodeError>>(channel).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Err(broken(node, &"it closed the stream without an answer")),
        Err(error) => Err(broken(node, &error)),
    }
}

pub(crate) fn broken(node: NodeId, reason: &dyn std::fmt::Display) -> NodeError {
    NodeError::new(ErrorKind::Unreachable, format!("talking to node {node} failed: {reason}"))
}

fn late(node: NodeId, limit: Duration) -> NodeError {
    let message = format!("node {node} did not answer within {} s", limit.as_secs());
    NodeError::new(ErrorKind::Timeout, message)
}

impl From<NetError> for NodeError {
    fn from(error: NetError) -> Self {
        let kind = match error {
            NetError::Start(_) => ErrorKind::Internal,
            _ => ErrorKind::Unreachable,
        };
        Self::new(kind, error)
    }
}
