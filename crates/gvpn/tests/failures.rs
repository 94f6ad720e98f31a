//! What goes wrong is told so that a user can act on it.
//!
//! Needs what payloads need: user namespaces and a TUN device.

mod rig;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use gvpn_sdk::{Client, Error, Rental, Run, Wish};
use rig::{Daemon, Rig, eventually};

const IMAGE: &str = "test/busybox";

/// A requestor with an image, and a provider that it may know already.
struct World {
    rig: Rig,
    client: Client,
    provider: Daemon,
    _requestor: Daemon,
}

impl World {
    async fn new(provider: &[&str]) -> Self {
        let rig = Rig::new().await;
        let requestor = rig.requestor().await;
        let config = "[provider]\nruntimes = [\"sandbox\"]\n";
        let provider = rig.provider_with("provider", config, provider).await;
        let tar = rig.path("image.tar");
        let mut command = Command::new("tar");
        command.arg("-cf").arg(&tar).arg("-C").arg(rig.images().join("busybox")).arg(".");
        assert!(command.status().unwrap().success());
        let client = requestor.client();
        client.import_image(&tar, Some(IMAGE)).await.unwrap();
        hears_of_an_offer(&requestor).await;
        Self { rig, client, provider, _requestor: requestor }
    }

    async fn rent(&self) -> Rental {
        self.client.rent(wish(), None).await.unwrap()
    }

    /// Nothing that failed has left anything.
    async fn nothing_is_left(&self) {
        eventually("nothing is left at the provider", async || {
            let running = self.provider.client().running_activities().await.unwrap();
            running.iter().all(|a| format!("{:?}", a.state.0) == "Terminated")
        })
        .await;
    }
}

/// Waits until a requestor knows what can be rented.
async fn hears_of_an_offer(requestor: &Daemon) {
    let (status, scan) =
        requestor.post("/market-api/v1/scan", serde_json::json!({ "type": "offer" })).await;
    assert_eq!(status, 201, "{scan}");
    let events = format!("/market-api/v1/scan/{}/events?timeout=5", scan.as_str().unwrap());
    eventually("an offer is heard of", async || {
        requestor.get(&events).await.1.as_array().is_some_and(|offers| !offers.is_empty())
    })
    .await;
}

fn wish() -> Wish {
    Wish { mem_gib: 0.25, storage_gib: 0.5, ..Wish::image(IMAGE) }
}

/// All offers that there are are known already.
fn brief(wish: Wish) -> Wish {
    Wish { patience: Duration::from_secs(3), ..wish }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_provider_matches() {
    let world = World::new(&[]).await;
    let wish = Wish { capabilities: vec!["teleport".into()], mem_gib: 9000.0, ..brief(wish()) };
    let error = world.client.rent(wish, None).await.unwrap_err();
    let Error::NoProvider { summary, .. } = &error else { panic!("{error}") };
    for part in ["0 of 1 offers match", "(golem.runtime.capabilities=teleport) excludes 1", "9000"]
    {
        assert!(summary.contains(part), "{summary}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_is_missing_or_was_forgotten() {
    // What cannot open a TUN device does not offer `vpn`.
    let world = World::new(&["--tun", "/dev/null/tun"]).await;
    let network = world.client.create_network("10.70.0.0/24").await.unwrap();
    let error = world.client.rent(brief(wish()), Some(&network)).await.unwrap_err();
    assert!(error.to_string().contains("(golem.runtime.capabilities=vpn) excludes 1"), "{error}");

    // A demand that does not ask for it finds the provider, but the deployment cannot work.
    let rental = world.rent().await;
    let provider = rental.provider().unwrap();
    let ip = network.add_node(provider, "10.70.0.2").await.unwrap();
    let agreement = rental.agreement().unwrap();
    let second = world.client.start_activity(agreement).await.unwrap();
    let error = second.deploy(&[network.deployment(ip).await.unwrap()]).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("golem.runtime.capabilities=vpn"), "{said}");
    second.destroy().await.unwrap();
    rental.end().await.unwrap();
    world.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_listens_on_localhost_only() {
    let world = World::new(&[]).await;
    let network = world.client.create_network("10.71.0.0/24").await.unwrap();
    let rental = world.client.rent(wish(), Some(&network)).await.unwrap();
    rental.run("httpd -p 127.0.0.1:80 -h /www").await.unwrap();
    let error = network.connect(rental.ip().unwrap(), 80).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert!(error.to_string().contains("listens on 127.0.0.1 only"), "{error}");
    rental.end().await.unwrap();
    network.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_unknown_or_is_not_what_it_should_be() {
    let world = World::new(&[]).await;
    let unknown = world.client.rent(Wish { image: Some("no/such".into()), ..wish() }, None).await;
    let error = unknown.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    assert!(error.to_string().contains("gvpn image import"), "{error}");

    let kept = world.client.images().await.unwrap().remove(0);
    let hash = "0".repeat(56);
    let file = format!("{}/registry/download/{}", world.client.url(), kept.sha3);
    let nobody = "http://127.0.0.1:9/image";
    for (image, parts) in [
        (format!("hash:sha3:{hash}:{file}"), [hash.as_str(), &kept.sha3]),
        (format!("hash:sha3:{hash}:{nobody}"), [nobody, "refused"]),
    ] {
        let error = world.client.rent(Wish { image: Some(image), ..wish() }, None).await;
        let said = error.unwrap_err().to_string();
        for part in parts {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    }
    world.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agreement_expires() {
    let world = World::new(&[]).await;
    // Time enough for the deployment, also on a busy machine.
    let lasts = Duration::from_secs(20);
    let rental = world.client.rent(Wish { lasts, ..wish() }, None).await.unwrap();
    let error = rental.run("sleep 1000").await.unwrap_err();
    assert!(error.to_string().contains("expired"), "while it runs: {error}");
    let error = rental.run("true").await.unwrap_err();
    assert!(error.to_string().contains("expired"), "afterwards: {error}");
    rental.end().await.unwrap();
    world.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_gone() {
    let mut world = World::new(&[]).await;
    let rental = world.rent().await;
    let activity = rental.activity().unwrap().clone();
    let batch = activity.exec(&[Run::shell("sleep 1000").captured()]).await.unwrap();
    let provider = rental.provider().unwrap().to_string();
    world.provider.kill();
    // Its offer is still known, but it does not answer.
    let another = Wish { patience: Duration::from_secs(30), ..wish() };
    let (ended, refused) = tokio::join!(batch.wait(), world.client.rent(another, None));
    let error = ended.unwrap_err().to_string();
    assert!(
        error.contains(&provider) && error.contains("cannot be reached"),
        "while it runs: {error}"
    );
    let error = rental.run("true").await.unwrap_err().to_string();
    assert!(
        error.contains(&provider) && error.contains("cannot be reached"),
        "afterwards: {error}"
    );
    let error = refused.unwrap_err();
    let Error::NoProvider { refusals, .. } = &error else { panic!("{error}") };
    assert!(refusals.iter().any(|r| r.contains("cannot be reached")), "{error}");
    drop(world.rig);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_silent() {
    let world = World::new(&[]).await;
    let rental = world.rent().await;
    let provider = rental.provider().unwrap().to_string();
    world.provider.pause();
    let start = Instant::now();
    let error = rental.run("true").await.unwrap_err().to_string();
    let silent = start.elapsed();
    assert!(error.contains(&provider) && error.contains("does not answer"), "{error}");
    assert!(silent < Duration::from_secs(15), "it took {silent:?} to say that {error}");
    world.provider.resume();
    // Not long enough to be given up.
    if start.elapsed() < Duration::from_secs(12) {
        eventually("the payload runs on", async || rental.run("true").await.is_ok()).await;
    }
}
