//! The roster service: what owners and members ask of this node.

use std::sync::Arc;

use gvpn_model::NodeId;

use crate::{
    NodeError,
    core::Core,
    networks::{member::Memberships, push::Pusher},
    peers::Call,
    proto::{self, RosterReply, RosterRequest},
};

/// Answers until the node stops.
pub(crate) fn serve(core: &Arc<Core>, memberships: Arc<Memberships>, pusher: Arc<Pusher>) {
    let mut calls = core.peers.serve(proto::ROSTER);
    let inner = core.clone();
    core.spawn(async move {
        while let Some(mut call) = calls.recv().await {
            let (memberships, pusher) = (memberships.clone(), pusher.clone());
            inner.spawn(async move {
                if let Some(request) = call.request().await {
                    let answer = handle(&mut call, request, &memberships, &pusher).await;
                    call.answer(answer).await;
                }
            });
        }
    });
}

async fn handle(
    call: &mut Call,
    request: RosterRequest,
    memberships: &Memberships,
    pusher: &Arc<Pusher>,
) -> Result<RosterReply, NodeError> {
    let peer: NodeId = call.peer;
    match request {
        RosterRequest::Push { network, kind } => {
            let frame = proto::receive_frame(&mut call.channel).await;
            let bytes = frame
                .map_err(|e| NodeError::invalid(format!("the roster did not arrive: {e}")))?
                .ok_or_else(|| NodeError::invalid("the roster did not arrive"))?;
            memberships.take(peer, network, kind, &bytes)
        }
        RosterRequest::Forget { network } => {
            memberships.forget(peer, network)?;
            Ok(RosterReply::Done)
        }
        RosterRequest::Pull { network, epoch } => {
            pusher.pulled(network, peer, epoch);
            Ok(RosterReply::Done)
        }
    }
}
