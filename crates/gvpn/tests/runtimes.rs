//! What providers say about their runtimes is what those can do, and what payloads use is measured.
//!
//! Needs runc or crun for containers, busybox-static, user namespaces and a TUN device.

mod rig;

use std::{fs, process::Command};

use rig::{Daemon, Rig, eventually};
use serde_json::{Value, json};

/// The offers of a provider by the runtime's name.
async fn offers(provider: &Daemon) -> Vec<(String, Vec<String>)> {
    let (status, offers) = provider.get("/gvpn/v1/provider/offers").await;
    assert_eq!(status, 200, "{offers}");
    let texts = |value: &Value| {
        let all = value.as_array().unwrap().iter();
        all.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let offer = |offer: &Value| {
        let properties = &offer["properties"];
        let name = properties["golem.runtime.name"].as_str().unwrap().to_owned();
        (name, texts(&properties["golem.runtime.capabilities"]))
    };
    let mut all: Vec<_> = offers.as_array().unwrap().iter().map(offer).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_say_what_was_seen_to_work() {
    let rig = Rig::new().await;
    let config = "[provider]\nruntimes = [\"sandbox\", \"container\", \"/no/such/program\"]\n";
    let able = rig.provider_with("able", config, &[]).await;
    let unable = rig.provider_with("unable", config, &["--tun", "/dev/null"]).await;
    eventually("both runtimes are offered", async || offers(&able).await.len() == 2).await;
    eventually("they are offered here too", async || offers(&unable).await.len() == 2).await;
    let names = |offers: &[(String, Vec<String>)]| {
        offers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let (with, without) = (offers(&able).await, offers(&unable).await);
    assert_eq!(
        (names(&with), names(&without)),
        (names(&with), vec!["container".into(), "vm".into()])
    );
    assert!(with.iter().all(|(_, can)| can.contains(&"vpn".to_owned())), "{with:?}");
    assert!(without.iter().all(|(_, can)| !can.contains(&"vpn".to_owned())), "{without:?}");
    assert!(with.iter().all(|(_, can)| !can.contains(&"inet".to_owned())), "{with:?}");
    // What does not work is refused by name.
    let requestor = rig.requestor().await;
    let ask = json!({ "provider": able.id, "image": "busybox", "runtime": "/no/such/program" });
    let (status, answer) = requestor.post("/gvpn/v1/agreements", ask).await;
    assert!(
        status != 200 && answer["message"].as_str().unwrap().contains("not offered"),
        "{answer}"
    );
    for provider in [&able, &unable] {
        let left = fs::read_dir(provider.dir().join("probes")).unwrap().count();
        assert_eq!(left, 0, "attempts leave nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_offered_as_what_they_are_and_join_networks() {
    let machine = gvpn_runtime::Machine::UserMode;
    if let Err(why) = machine.probe() {
        println!("MISSING, not tested: {why}");
        return;
    }
    let rig = Rig::new().await;
    let config = "[provider]\nruntimes = [\"vm-uml\", \"sandbox\"]\n";
    let provider = rig.provider_with("machines", config, &[]).await;
    eventually("both are offered", async || offers(&provider).await.len() == 2).await;
    let names: Vec<_> = offers(&provider).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["sandbox", "vm"]);
    let (_, all) = provider.get("/gvpn/v1/provider/offers").await;
    let of_machine = |offer: &&Value| offer["properties"]["gvpn.runtime"] == "vm-uml";
    let offer = all.as_array().unwrap().iter().find(of_machine).unwrap();
    assert_eq!(offer["properties"]["gvpn.vm.machine"], "uml");
    assert_eq!(offer["properties"]["gvpn.vm.acceleration"], "uml");
    let requestor = rig.requestor().await;
    let net = requestor.network("10.49.0.0/24").await;
    let mut both = vec![];
    for (runtime, ip) in [("vm-uml", "10.49.0.2"), ("sandbox", "10.49.0.3")] {
        let ask = json!({ "provider": provider.id, "image": "busybox", "runtime": runtime });
        both.push(requestor.payload_of(ask, &provider, &net, ip).await);
    }
    let kernel = requestor.sh(&both[0], "ping -c 1 -W 10 10.49.0.3 > /dev/null; uname -r").await;
    let own = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_ne!(kernel.unwrap().trim(), own.trim(), "it has a kernel of its own");
    requestor.sh(&both[1], "ping -c 1 -W 10 10.49.0.2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_measured_before_it_is_told() {
    let rig = Rig::new().await;
    let (requestor, a) = (rig.requestor().await, rig.provider("a").await);
    let net = requestor.network("10.48.0.0/24").await;
    let mut both = vec![];
    for (runtime, ip) in [("sandbox", "10.48.0.2"), ("container", "10.48.0.3")] {
        let ask = json!({ "provider": a.id, "image": "busybox", "runtime": runtime });
        both.push(requestor.payload_of(ask, &a, &net, ip).await);
    }
    requestor.sh(&both[0], "ping -c 5 -i 0.1 -s 1000 -W 5 10.48.0.3").await.unwrap();
    for activity in &both {
        requestor.sh(activity, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done").await.unwrap();
        // The first question ever asked.
        let path = format!("/activity-api/v1/activity/{activity}/usage");
        let (status, usage) = requestor.get(&path).await;
        assert_eq!(status, 200, "{usage}");
        let vector: Vec<f64> =
            usage["currentUsage"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
        assert!(vector.len() == 2 && vector[0] > 0.1 && vector[1] > 0.1, "{usage}");
        let counter = |name: &str| usage["counters"][name].as_f64().unwrap();
        assert_eq!(counter("golem.usage.cpu_sec"), vector[1]);
        assert!(counter("gvpn.usage.memory-bytes") > 0.0, "{usage}");
        for direction in ["sent", "received"] {
            let bytes = counter(&format!("gvpn.usage.network.{direction}-bytes"));
            assert!(bytes > 5000.0, "{direction}: {usage}");
        }
        // What was carried is not forgotten with the network.
        let leave = format!("/gvpn/v1/activities/{activity}/networks/{net}");
        assert_eq!(requestor.delete(&leave).await.0, 200);
        let (_, later) = requestor.get(&path).await;
        let name = "gvpn.usage.network.sent-bytes";
        assert!(later["counters"][name].as_f64().unwrap() >= counter(name), "{later}");
    }
}

#[test]
fn this_host_has_an_oci_runtime() {
    let found = ["runc", "crun"].iter().any(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    assert!(found, "install runc or crun: nothing about containers was tested");
}
