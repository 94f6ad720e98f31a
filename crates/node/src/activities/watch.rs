//! The requestor's follower of one activity: reads the provider's log, notices when the provider
//! is gone, and tells it what it missed when it is back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gvpn_model::NodeId;
use tokio::time::timeout;

use crate::{
    ErrorKind, NodeError,
    activities::{
        remote::Remote,
        requestor::{DESTROYED, Requestor},
    },
    peers::{ANSWER_LIMIT, broken, keep_alive},
    proto::{self, ActivityReply, ActivityRequest, Numbered},
};

/// A provider says at least this often that it is there.
pub(crate) const ALIVE_EVERY: Duration = Duration::from_secs(4);
/// A provider that says nothing for this long may be gone: the follower connects anew.
const SILENCE: Duration = Duration::from_secs(13);
/// A provider that cannot be reached for this long counts as gone, and its activity as ended.
const GONE_AFTER: Duration = Duration::from_secs(20);
/// Pauses between attempts to reach a provider.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long a provider that is back is sought, to be told that its activity is over.
const TELL_FOR: Duration = Duration::from_secs(24 * 3600);

/// Follows an activity to its end.
pub(crate) async fn follow(requestor: Arc<Requestor>, remote: Arc<Remote>) {
    let mut heard = Instant::now();
    let mut pause = PAUSE.0;
    while !remote.info().is_over() {
        let before = heard;
        let outcome = session(&requestor, &remote, &mut heard).await;
        if heard > before {
            pause = PAUSE.0;
        }
        match outcome {
            Ok(()) => {}
            Err(e)
                if matches!(
                    e.kind,
                    ErrorKind::Gone | ErrorKind::NotFound | ErrorKind::Forbidden
                ) =>
            {
                remote.end(Some(e.message));
            }
            Err(e) if heard.elapsed() > GONE_AFTER => {
                remote.ask_end();
                remote.end(Some(format!("the provider cannot be reached: {e}")));
            }
            Err(e) => {
                tracing::debug!(activity = %remote.info().id, error = %e, "not followed just now");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
    if let Err(error) = requestor.keep(&remote) {
        tracing::error!(%error, "the end of an activity was not kept");
    }
    if remote.end_asked() {
        tell_end(&requestor, &remote).await;
    }
}

/// One connection's worth of following.
async fn session(
    requestor: &Requestor,
    remote: &Remote,
    heard: &mut Instant,
) -> Result<(), NodeError> {
    let (id, provider) = (remote.info().id, remote.info().provider);
    let request = ActivityRequest::Watch { id, from: remote.next() };
    let peers = &requestor.core().peers;
    let (_, mut channel): (ActivityReply, _) =
        peers.ask(provider, proto::ACTIVITY, &request, ANSWER_LIMIT.min(GONE_AFTER)).await?;
    keep_alive(&mut channel);
    *heard = Instant::now();
    loop {
        let entry = timeout(SILENCE, proto::receive::<Numbered>(&mut channel)).await;
        let entry = entry.map_err(|_| silent(provider))?.map_err(|e| broken(provider, &e))?;
        let Some(entry) = entry else {
            return Err(broken(provider, &"it closed the stream"));
        };
        *heard = Instant::now();
        if remote.apply(entry) {
            requestor.keep(remote)?;
        }
        if remote.info().is_over() {
            return Ok(());
        }
    }
}

/// The activity is over here; the provider may not know it yet.
async fn tell_end(requestor: &Requestor, remote: &Remote) {
    let info = remote.info();
    let why = info.reason.unwrap_or_else(|| DESTROYED.to_owned());
    let request = ActivityRequest::Destroy { id: info.id, why };
    let (start, mut pause) = (Instant::now(), Duration::from_secs(5));
    while start.elapsed() < TELL_FOR {
        match requestor.ask(info.provider, &request, ANSWER_LIMIT).await {
            Err(e) if matches!(e.kind, ErrorKind::Unreachable | ErrorKind::Timeout) => {}
            _ => break,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(300));
    }
    remote.told_end();
    if let Err(error) = requestor.keep(remote) {
        tracing::warn!(%error, "the provider will be told again that an activity is over");
    }
}

fn silent(provider: NodeId) -> NodeError {
    let message = format!("provider {provider} said nothing for {} s", SILENCE.as_secs());
    NodeError::new(ErrorKind::Timeout, message)
}
