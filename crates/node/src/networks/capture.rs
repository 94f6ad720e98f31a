//! Captures: copies of a network's packets, from this node and from its members' nodes.

use std::{collections::HashSet, sync::Arc};

use gvpn_dataplane::{CaptureSpec, Captured};
use gvpn_model::{NetworkId, NodeId};
use gvpn_switch::capture::{Direction, Filter};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Networks;
use crate::{
    NodeError,
    core::Core,
    peers::{ANSWER_LIMIT, Call},
    proto::{self, CaptureRequest},
};

/// Packets on their way to whoever reads the capture.
const QUEUE: usize = 1024;
/// Bytes of a frame before the packet: time, direction, length.
const FRAME_HEAD: usize = 13;

/// What to capture.
#[derive(Debug, Clone, Default)]
pub struct CaptureWish {
    /// Which packets, as [`Filter`] reads it.
    pub filter: String,
    /// How much of each packet; 0 for all.
    pub snap: u32,
    /// Only at this node, and both ways. Else at every member's node, where packets start, so that
    /// each is seen once.
    pub node: Option<NodeId>,
}

/// A running capture; it ends everywhere when this is dropped.
#[derive(Debug)]
pub struct CaptureStream {
    packets: mpsc::Receiver<Captured>,
    _end: DropGuard,
}

impl CaptureStream {
    /// The next packet; `None` when the network is gone.
    pub async fn next(&mut self) -> Option<Captured> {
        self.packets.recv().await
    }
}

impl Networks {
    /// Captures a network that this node owns.
    ///
    /// # Errors
    /// As [`get`](Self::get); `Invalid` for a filter that is none, `NotFound` for a node that is not
    /// in the network.
    pub fn capture(&self, id: NetworkId, wish: CaptureWish) -> Result<CaptureStream, NodeError> {
        let roster = self.roster(id)?;
        wish.filter.parse::<Filter>().map_err(NodeError::invalid)?;
        if let Some(node) = wish.node.filter(|node| !roster.has_node(*node)) {
            return Err(NodeError::not_found(format!("node {node} is not in network {id}")));
        }
        let (sender, packets) = mpsc::channel(QUEUE);
        let end = CancellationToken::new();
        let task = Task { networks: self.clone(), id, wish, sender, end: end.clone() };
        self.inner.core.spawn(async move { task.run().await });
        Ok(CaptureStream { packets, _end: end.drop_guard() })
    }
}

/// Follows the network's nodes and captures at each.
struct Task {
    networks: Networks,
    id: NetworkId,
    wish: CaptureWish,
    sender: mpsc::Sender<Captured>,
    end: CancellationToken,
}

impl Task {
    async fn run(self) {
        let mut changes = self.networks.local().subscribe();
        let mut tapped = HashSet::new();
        while let Some(roster) = self.networks.in_force(self.id) {
            let nodes = match self.wish.node {
                Some(node) => vec![node],
                None => roster.nodes(),
            };
            for node in nodes {
                if tapped.insert(node) {
                    self.tap(node);
                }
            }
            tokio::select! {
                () = self.end.cancelled() => return,
                // Whatever changed, and however much was missed, the roster is looked at again.
                _ = changes.recv() => {}
            }
        }
        self.end.cancel();
    }

    fn tap(&self, node: NodeId) {
        let core = self.networks.inner.core.clone();
        let request = CaptureRequest {
            network: self.id,
            filter: self.wish.filter.clone(),
            snap: self.wish.snap,
            both: self.wish.node.is_some(),
        };
        let (sender, end) = (self.sender.clone(), self.end.clone());
        let inner = core.clone();
        core.spawn(async move {
            let copied = async {
                if node == inner.me {
                    here(&inner, &request, &sender).await
                } else {
                    there(&inner, node, &request, &sender).await
                }
            };
            tokio::select! {
                () = end.cancelled() => {}
                result = copied => if let Err(error) = result {
                    tracing::info!(network = %request.network, %node, %error, "nothing is captured at this node");
                },
            }
        });
    }
}

async fn here(
    core: &Core,
    request: &CaptureRequest,
    to: &mpsc::Sender<Captured>,
) -> Result<(), NodeError> {
    let mut capture = core.dataplane().capture(request.network, spec(request)?);
    while let Some(packet) = capture.next().await {
        if to.send(packet).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn there(
    core: &Core,
    node: NodeId,
    request: &CaptureRequest,
    to: &mpsc::Sender<Captured>,
) -> Result<(), NodeError> {
    let ((), mut channel) = core.peers.ask(node, proto::CAPTURE, request, ANSWER_LIMIT).await?;
    while let Ok(Some(frame)) = proto::receive_frame(&mut channel).await {
        let Some(packet) = unframe(&frame) else { break };
        if to.send(packet).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Lets owners capture the packets of their networks on this node.
pub(crate) fn serve(core: &Arc<Core>, networks: &Networks) {
    let mut calls = core.peers.serve(proto::CAPTURE);
    let (inner, networks) = (core.clone(), networks.clone());
    core.spawn(async move {
        while let Some(call) = calls.recv().await {
            let (core, networks) = (inner.clone(), networks.clone());
            inner.spawn(async move { answer(call, &core, &networks).await });
        }
    });
}

async fn answer(mut call: Call, core: &Core, networks: &Networks) {
    let Some(request) = call.request::<CaptureRequest>().await else { return };
    let id = request.network;
    let owner = networks.in_force(id).map(|roster| roster.owner);
    let peer = call.peer;
    let spec = match spec(&request) {
        Ok(spec) if owner == Some(peer) => spec,
        Err(error) => return call.answer::<()>(Err(error)).await,
        Ok(_) => {
            let refusal = NodeError::forbidden(format!("node {peer} does not own network {id}"));
            return call.answer::<()>(Err(refusal)).await;
        }
    };
    if call.reply(&Ok(())).await.is_err() {
        return;
    }
    let mut capture = core.dataplane().capture(id, spec);
    let (mut reads, mut writes) = tokio::io::split(call.channel);
    loop {
        tokio::select! {
            // The asker sends nothing more: what comes is its end.
            _ = proto::receive_frame(&mut reads) => return,
            packet = capture.next() => {
                let Some(packet) = packet else { return };
                let owned = networks.in_force(id).is_some_and(|roster| roster.owner == peer);
                if !owned || proto::send_frame(&mut writes, &frame(&packet)).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn spec(request: &CaptureRequest) -> Result<CaptureSpec, NodeError> {
    let filter = request.filter.parse().map_err(NodeError::invalid)?;
    Ok(CaptureSpec { filter, snap: request.snap as usize, both: request.both })
}

fn frame(packet: &Captured) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEAD + packet.bytes.len());
    frame.extend(packet.time.to_be_bytes());
    frame.push(match packet.direction {
        Direction::Inbound => 1,
        Direction::Outbound => 2,
    });
    frame.extend((packet.length as u32).to_be_bytes());
    frame.extend(&packet.bytes);
    frame
}

fn unframe(frame: &[u8]) -> Option<Captured> {
    let (head, bytes) = frame.split_at_checked(FRAME_HEAD)?;
    let direction = match head[8] {
        1 => Direction::Inbound,
        2 => Direction::Outbound,
        _ => return None,
    };
    let time = u64::from_be_bytes(*head.first_chunk()?);
    let length = u32::from_be_bytes(*head[9..].first_chunk()?) as usize;
    Some(Captured { time, direction, bytes: bytes.to_vec(), length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_travel_in_frames() {
        let direction = Direction::Inbound;
        let packet = Captured { time: 7 << 40, direction, bytes: vec![0x45, 0, 1], length: 1500 };
        assert_eq!(unframe(&frame(&packet)), Some(packet));
        for bad in [&[][..], &[0; 12], &[9; 20]] {
            assert_eq!(unframe(bad), None);
        }
    }
}
