//! What ExeUnits report and ask for.

use std::sync::Arc;

use gvpn_exeunit::{ExeUnitEvent, Reply};
use tokio::sync::mpsc;

use super::Host;
use crate::{NodeError, activities::hosted::Hosted, proto::ActivityUpdate};

/// What a node signs when a script asks for a signature over its results.
const RESULTS_DOMAIN: &str = "exescript-results";

/// Takes an ExeUnit's events until it is gone.
pub(super) async fn run(
    host: Arc<Host>,
    hosted: Arc<Hosted>,
    mut events: mpsc::Receiver<ExeUnitEvent>,
) {
    let mut reason = Some("its ExeUnit is gone".to_owned());
    while let Some(event) = events.recv().await {
        match event {
            ExeUnitEvent::State(state) => hosted.set_state(state),
            ExeUnitEvent::Batch(event) => hosted.log.push(ActivityUpdate::Event(event)),
            ExeUnitEvent::Result { batch, result } => {
                hosted.log.push(ActivityUpdate::Result { batch, result });
            }
            ExeUnitEvent::AttachNic { network, member, nic, reply } => {
                respond(reply, host.attach(&hosted, network, member, nic));
                host.reconcile_one(&hosted, network);
            }
            ExeUnitEvent::DetachNic { network, member: _ } => host.detach(&hosted, network),
            ExeUnitEvent::FetchFile { url, file, reply } => {
                let files = host.files.clone();
                host.core.spawn(async move {
                    respond(reply, files.fetch_into(&url, file.into()).await.map(drop));
                });
            }
            ExeUnitEvent::StoreFile { url, file, reply } => {
                let files = host.files.clone();
                host.core.spawn(async move {
                    respond(reply, files.store_from(&url, file.into()).await);
                });
            }
            ExeUnitEvent::Sign { digest, reply } => {
                let signature = host.core.config.identity.sign(RESULTS_DOMAIN, &digest);
                let _ = reply.send(Ok(hex::encode(signature.as_bytes())));
            }
            ExeUnitEvent::Usage(usage) => hosted.set_usage(usage),
            ExeUnitEvent::Exited { reason: why } => {
                reason = why.or_else(|| Some("terminated".to_owned()));
                break;
            }
        }
    }
    host.ended(&hosted, reason);
    let workdir = host.core.activities_dir().join(hosted.info().id.to_string());
    if workdir.exists()
        && let Err(error) = gvpn_exeunit::sweep(&workdir).await
    {
        tracing::warn!(workdir = %workdir.display(), %error, "files of an activity were left");
    }
    host.forget_later(hosted.info().id);
}

fn respond(reply: Reply, outcome: Result<(), NodeError>) {
    let _ = reply.send(outcome.map_err(|error| error.message));
}
