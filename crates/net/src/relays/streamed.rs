//! A relay that UDP does not reach: a TLS stream carries the conversation, and all that goes through
//! the relay, until UDP reaches it again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gvpn_dataplane::Hop;
use gvpn_path::Source;
use quinn::VarInt;

use super::client::{Wanted, registered};
use crate::{path::PeerPath, relay_stream, shared::Shared};

/// How long the relay may take to answer once there is a stream.
const CALL: Duration = Duration::from_secs(5);
/// How often UDP is tried meanwhile, at first and later.
const FIRST_TRIAL: Duration = Duration::from_secs(2);
const LAST_TRIAL: Duration = Duration::from_secs(30);
/// What is on its way when UDP works again may still arrive by the stream.
const GRACE: Duration = Duration::from_secs(2);

/// Talks to a relay over a stream until the conversation ends. `udp` is what is wrong with UDP.
pub(super) async fn talk(shared: &Arc<Shared>, wanted: Wanted, udp: String) -> Result<(), String> {
    let addr = wanted.addr;
    let Some(dialer) = &shared.dialer else { return Err(udp) };
    let stream = dialer.open(addr).await.map_err(|e| format!("UDP: {udp}; {e}"))?;
    let carrier = shared.plane.open_carrier();
    let here = Hop::Direct(carrier.addr());
    let mut carried = Box::pin(relay_stream::carry(stream, &carrier));
    let (_, conn) = tokio::select! {
        called = shared.call_addr(carrier.addr(), CALL) => called?,
        ended = &mut carried => return Err(over(ended)),
    };
    tracing::info!(relay = %addr, "UDP does not reach the relay: connected over a TLS stream");
    let path = Arc::clone(&conn.path);
    path.tell(|agent, now| {
        agent.add_candidate(now, Hop::Direct(addr), Source::Given);
        // The relay may still believe in an address of before.
        agent.local_change(now);
    });
    let mut served = Box::pin(registered(shared, wanted, Arc::clone(&conn)));
    let result = tokio::select! {
        result = &mut served => Some(result),
        ended = &mut carried => match path.active() {
            Some(active) if active != here => None,
            _ => Some(Err(over(ended))),
        },
        () = udp_again(&path, addr) => None,
    };
    drop(carried);
    drop(carrier);
    path.tell(|agent, now| agent.remove_candidate(now, here));
    match result {
        Some(result) => {
            conn.quic.close(VarInt::from_u32(0), b"the stream ended");
            shared.relays.rerouted(shared, addr, None);
            result
        }
        None => {
            tracing::info!(relay = %addr, "UDP reaches the relay again");
            served.await
        }
    }
}

/// Tries UDP from time to time; returns when it has worked for a moment.
async fn udp_again(path: &Arc<PeerPath>, addr: SocketAddr) {
    let mut route = path.watch();
    let mut trial = FIRST_TRIAL;
    loop {
        if path.active() == Some(Hop::Direct(addr)) {
            tokio::time::sleep(GRACE).await;
            if path.active() == Some(Hop::Direct(addr)) {
                return;
            }
        }
        let waited = tokio::time::timeout(trial, route.changed()).await;
        if waited.is_err() {
            path.tell(|agent, now| agent.punch(now));
            trial = (trial * 2).min(LAST_TRIAL);
        }
    }
}

fn over(ended: std::io::Result<()>) -> String {
    let why = ended.err().map_or_else(String::new, |e| format!(": {e}"));
    format!("the TLS stream to the relay ended{why}")
}
