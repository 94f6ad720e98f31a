//! Rules, quarantine and limits on running payloads.

mod rig;

use std::time::Duration;

use rig::{Rig, WAIT};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn policy_holds_at_both_ends_and_is_explained() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.63.0.0/24").await;
    let one = owner.payload(&a, &net, "10.63.0.2").await;
    let two = owner.payload(&b, &net, "10.63.0.3").await;
    for (address, name) in [("10.63.0.2", "client"), ("10.63.0.3", "server")] {
        let edit = json!({ "name": name, "groups": [name] });
        owner.set(&format!("{net}/members/{address}"), edit).await;
    }
    owner.sh(&two, "echo ok > /www/page; httpd -p 80 -h /www; httpd -p 81 -h /www").await.unwrap();
    let get = |port: u16| format!("timeout 3 wget -q -O - http://10.63.0.3:{port}/page");
    assert_eq!(owner.sh(&one, &get(80)).await.as_deref(), Ok("ok\n"));
    let rules = format!("/gvpn/v1/net/{net}/rules?{WAIT}");
    let rule = json!({ "action": "allow", "from": { "group": "client" },
        "to": { "group": "server" }, "protocol": "tcp", "ports": [{ "first": 80, "last": 80 }] });
    let (status, rule) = owner.post(&rules, rule).await;
    assert_eq!(status, 200, "{rule}");
    let policy =
        owner.get(&format!("/gvpn/v1/net/{net}/roster")).await.1["settings"]["policy"].clone();
    let mut strict = policy.clone();
    strict["default"] = json!("deny");
    owner.set(&net, json!({ "policy": strict })).await;
    assert_eq!(owner.sh(&one, &get(80)).await.as_deref(), Ok("ok\n"), "a rule allows it");
    owner.sh(&one, &get(81)).await.unwrap_err();
    owner.sh(&one, "ping -c 1 -W 1 10.63.0.3").await.unwrap_err();
    owner.sh(&two, "ping -c 1 -W 1 10.63.0.2").await.unwrap_err();
    let trace = async |port: u16| {
        let ask = json!({ "source": "10.63.0.2", "destination": "10.63.0.3", "protocol": "tcp",
            "port": port });
        owner.post(&format!("/gvpn/v1/net/{net}/trace"), ask).await.1
    };
    let server = owner.get(&format!("/gvpn/v1/net/{net}/members/server")).await.1["id"].clone();
    let passes = trace(80).await;
    assert_eq!(passes["trace"]["outcome"]["delivered"], server, "{passes}");
    let step = json!({ "rule": { "id": rule["id"], "action": "allow", "reply": false } });
    assert!(passes["trace"]["steps"].as_array().unwrap().contains(&step), "{passes}");
    assert!(passes["path"].as_str().is_some_and(|path| path.contains("direct")), "{passes}");
    assert_eq!(trace(81).await["trace"]["outcome"]["dropped"], "denied");

    // Nobody is named: refused, and everything stays as it was.
    let nobody = json!({ "action": "deny", "from": { "group": "nobody" } });
    assert_eq!(owner.post(&rules, nobody).await.0, 400);
    owner.set(&net, json!({ "policy": policy })).await;
    owner.sh(&one, &get(80)).await.unwrap();

    owner.set(&format!("{net}/members/server"), json!({ "quarantined": true })).await;
    owner.sh(&one, "ping -c 1 -W 1 10.63.0.3").await.unwrap_err();
    owner.set(&format!("{net}/members/server"), json!({ "quarantined": false })).await;
    owner.sh(&one, "ping -c 1 -W 2 10.63.0.3").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_slows_one_member_only() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.64.0.0/24").await;
    let slow = owner.payload(&a, &net, "10.64.0.2").await;
    let fast = owner.payload(&a, &net, "10.64.0.3").await;
    let sink = owner.payload(&b, &net, "10.64.0.4").await;
    let limit = json!({ "limit": { "bitsPerSecond": 4_000_000 } });
    owner.set(&format!("{net}/members/10.64.0.2"), limit).await;
    for port in [5000, 5001] {
        let listen = format!("nc -ll -p {port} -e /bin/sh -c 'cat | wc -c' >/dev/null 2>&1 &");
        owner.sh(&sink, &listen).await.unwrap();
    }
    // A megabyte at 4 Mbit/s takes 2 s.
    let send = |port: u16| {
        format!("dd if=/dev/zero bs=1000 count=1000 2>/dev/null | nc -w 60 10.64.0.4 {port}")
    };
    let timed = async |activity: &str, port: u16| {
        let start = std::time::Instant::now();
        owner.sh(activity, &send(port)).await.unwrap();
        start.elapsed()
    };
    let (limited, free) = tokio::join!(timed(&slow, 5000), timed(&fast, 5001));
    assert!(limited > Duration::from_millis(1800), "{limited:?}");
    assert!(free < limited, "{free:?} {limited:?}");
}
