//! Many activities on one provider.

mod rig;

use gvpn_model::NetworkId;
use rig::{Rig, network};

const ACTIVITIES: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_activities_share_a_network_and_end_together() {
    let rig = Rig::new();
    let id = NetworkId::random();
    let first = rig.ready(vec![network(id, 2)]).await;
    let others = (0..ACTIVITIES - 1).map(|n| rig.ready(vec![network(id, n + 3)]));
    let others = futures(others).await;
    for activity in &others {
        activity.shell_until("ping -c 1 -W 2 10.20.0.2").await;
    }
    let images = std::fs::read_dir(rig.path("images")).unwrap().flatten();
    assert_eq!(images.filter(|entry| entry.path().is_dir()).count(), 1);
    futures(others.iter().chain([&first]).map(|activity| activity.unit.terminate())).await;
    assert_eq!(std::fs::read_dir(rig.path("activities")).unwrap().count(), 0);
}

/// All of them, at once.
async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
