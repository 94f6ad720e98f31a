//! Networks that change while payloads run and talk: real daemons, real payloads.

mod rig;

use rig::{Rig, run};
use serde_json::{Value, json};

/// Sends a line every tenth of a second for six seconds, and says when it has.
const TRICKLE: &str = "(n=0; while [ $n -lt 60 ]; do n=$((n+1)); echo line $n; sleep 0.1; done; \
    touch /tmp/sent) | nc 10.60.0.9 7000 >/dev/null 2>&1 &";

#[tokio::test(flavor = "multi_thread")]
async fn everything_changes_and_what_does_not_is_not_disturbed() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.60.0.0/24").await;
    let one = owner.payload(&a, &net, "10.60.0.2").await;
    let two = owner.payload(&b, &net, "10.60.0.3").await;
    let still = owner.payload(&b, &net, "10.60.0.9").await;
    owner.sh(&one, "ping -c 1 -W 5 10.60.0.9").await.unwrap();
    // This goes on through all the changes and must not lose a packet.
    let ping = json!([run("/bin/ping", &["-c", "60", "-i", "0.1", "10.60.0.9"])]);
    let (_, undisturbed) = owner.begin(&one, ping).await;
    // So does this connection, and neither end may have to send anything twice.
    owner.sh(&still, "sleep 99 | nc -l -p 7000 > /tmp/lines &").await.unwrap();
    owner.sh(&one, TRICKLE).await.unwrap();

    owner.set(&format!("{net}/members/10.60.0.3"), json!({ "name": "db" })).await;
    owner.set(&format!("{net}/members/db"), json!({ "addIps": ["10.60.0.30"] })).await;
    owner.comes_true(&one, "ping -c 1 -W 1 10.60.0.30").await;
    owner.sh(&one, "ping -c 1 -W 1 10.60.0.3").await.unwrap();
    owner.set(&format!("{net}/members/db"), json!({ "ips": ["10.60.0.31"] })).await;
    owner.comes_true(&one, "ping -c 1 -W 1 db && ping -c 1 -W 1 10.60.0.31").await;
    let gone = owner.sh(&one, "ping -c 1 -W 1 10.60.0.3").await.unwrap_err();
    assert!(!gone.contains("1 packets received"), "{gone}");

    // IPv6 arrives in a network that had none, and addresses of it in running payloads.
    let (status, info) =
        owner.post(&format!("/gvpn/v1/net/{net}/prefixes"), json!({ "generate": true })).await;
    assert_eq!(status, 200, "{info}");
    let prefix = info["prefixes"][1].as_str().unwrap().to_owned();
    let v6 = |n: u8| prefix.replace("::/64", &format!("::{n}"));
    owner.set(&format!("{net}/members/10.60.0.2"), json!({ "addIps": [v6(2)] })).await;
    owner.set(&format!("{net}/members/db"), json!({ "addIps": [v6(3)] })).await;
    owner.comes_true(&one, &format!("ping -c 1 -W 1 {}", v6(3))).await;
    owner.comes_true(&two, &format!("ping -c 1 -W 1 {} && ping -c 1 -W 1 {}", v6(2), v6(1))).await;

    // MTU, gateway, a route through a member, further names.
    owner.set(&net, json!({ "mtu": 1337, "hosts": { "printer.home": ["10.60.0.9"] } })).await;
    owner.comes_true(&one, "ip link show eth0 | grep -q 'mtu 1337'").await;
    owner.comes_true(&one, "ping -c 1 -W 1 printer.home").await;
    let prefixes = format!("{net}/prefixes");
    owner.set(&prefixes, json!({ "prefix": "10.60.0.0/24", "gateway": "10.60.0.254" })).await;
    owner.comes_true(&one, "grep -q 10.60.0.254 /etc/resolv.conf").await;
    owner.comes_true(&one, "ping -c 1 -W 1 10.60.0.254").await;
    let members = owner.get(&format!("/gvpn/v1/net/{net}/members")).await.1;
    let db = members.as_array().unwrap().iter().find(|m| m["name"] == "db").unwrap()["id"].clone();
    let routes = json!({ "routes": [{ "destination": "172.20.0.0/16", "via": db }] });
    owner.set(&net, routes).await;
    owner.comes_true(&one, "ip route | grep -q 172.20.0.0/16").await;
    owner.sh(&two, "ip addr add 172.20.0.1/32 dev lo").await.ok();

    // A prefix leaves when nobody is in it.
    let busy = format!("/gvpn/v1/net/{net}/prefixes?prefix=10.60.0.0/24");
    assert_eq!(owner.delete(&busy).await.0, 409);

    let results = owner.finish(&one, undisturbed.as_str().unwrap()).await;
    let output = results[0]["stdout"].as_str().unwrap();
    assert!(output.contains("60 packets transmitted, 60 packets received"), "{output}");
    owner.comes_true(&one, "test -e /tmp/sent").await;
    owner.comes_true(&still, "grep -qx 'line 60' /tmp/lines").await;
    assert_eq!(owner.sh(&still, "wc -l < /tmp/lines").await.as_deref(), Ok("60\n"));
    let progress = owner.get(&format!("/gvpn/v1/net/{net}/progress")).await.1;
    assert!(progress.as_array().unwrap().iter().all(|p| p["current"] == true), "{progress}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_moves_to_another_provider_with_its_address() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.61.0.0/24").await;
    let one = owner.payload(&a, &net, "10.61.0.2").await;
    let old = owner.payload(&a, &net, "10.61.0.3").await;
    owner.set(&format!("{net}/members/10.61.0.3"), json!({ "name": "web" })).await;
    owner.sh(&one, "ping -c 1 -W 5 web").await.unwrap();
    let new = owner.activity(&b).await;
    owner.set(&format!("{net}/members/web"), json!({ "node": b.id })).await;
    let results = owner.exec(&new, json!([rig::deploy(&net, "10.61.0.3"), { "start": {} }])).await;
    assert!(results.iter().all(|result| result["result"] == "Ok"), "{results:?}");
    owner.comes_true(&one, "ping -c 1 -W 1 web").await;
    assert!(owner.sh(&new, "ip addr").await.unwrap().contains("10.61.0.3/24"));
    assert!(!owner.sh(&old, "ip addr").await.unwrap().contains("10.61.0.3/24"), "it has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_with_one_prefix_are_apart() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let (red, blue) = (owner.network("10.66.0.0/24").await, owner.network("10.66.0.0/24").await);
    let mut payloads = Vec::new();
    for net in [&red, &blue] {
        let server = owner.payload(&b, net, "10.66.0.3").await;
        let page = format!("echo {net} > /www/page; httpd -p 80 -h /www");
        owner.sh(&server, &page).await.unwrap();
        payloads.push(owner.payload(&a, net, "10.66.0.2").await);
    }
    for (net, client) in [&red, &blue].into_iter().zip(&payloads) {
        let page = owner.sh(client, "timeout 5 wget -q -O - http://10.66.0.3/page").await;
        assert_eq!(page, Ok(format!("{net}\n")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_share_networks_as_they_like() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let (red, blue) = (owner.network("10.68.0.0/24").await, owner.network("10.69.0.0/24").await);
    // Two activities of one provider in one network; one of them joins another while it runs.
    let one = owner.payload(&a, &red, "10.68.0.2").await;
    let two = owner.payload(&a, &red, "10.68.0.3").await;
    let there = owner.payload(&b, &blue, "10.69.0.3").await;
    owner.sh(&one, "ping -c 1 -W 5 10.68.0.3").await.unwrap();
    owner.add_node(&blue, &a, "10.69.0.2").await;
    let join = json!({ "network": blue, "ip": "10.69.0.2" });
    let joined = owner.post(&format!("/gvpn/v1/activities/{one}/networks"), join).await;
    assert_eq!(joined.0, 200, "{joined:?}");
    owner.comes_true(&one, "ping -c 1 -W 1 10.69.0.3 && ping -c 1 -W 1 10.68.0.3").await;
    owner.sh(&two, "ping -c 1 -W 1 10.69.0.3").await.unwrap_err();

    // A network leaves one payload, then all of them; the other network stays as it was.
    let ping = json!([run("/bin/ping", &["-c", "30", "-i", "0.1", "10.68.0.3"])]);
    let (_, undisturbed) = owner.begin(&one, ping).await;
    let left = owner.delete(&format!("/gvpn/v1/activities/{one}/networks/{blue}")).await;
    assert_eq!(left.0, 200, "{left:?}");
    owner.comes_true(&one, "! ip addr | grep -q 10.69.0.2").await;
    owner.sh(&there, "ip addr | grep -q 10.69.0.3").await.unwrap();
    assert_eq!(owner.delete(&format!("/net-api/v1/net/{blue}")).await, (200, Value::Null));
    owner.comes_true(&there, "! ip addr | grep -q 10.69.0.3").await;
    let results = owner.finish(&one, undisturbed.as_str().unwrap()).await;
    let output = results[0]["stdout"].as_str().unwrap();
    assert!(output.contains("30 packets received"), "{output}");

    // A member is removed: its payload runs on without the network.
    let gone = owner.delete(&format!("/gvpn/v1/net/{red}/members/10.68.0.3?wait=60")).await;
    assert_eq!(gone.0, 200, "{gone:?}");
    owner.comes_true(&two, "! ip addr | grep -q 10.68.0.3").await;
    owner.sh(&one, "ping -c 1 -W 1 10.68.0.3").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_runs_on_without_its_owner() {
    let rig = Rig::new().await;
    let mut owner = rig.requestor().await;
    let (a, b) = (rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.70.0.0/24").await;
    let one = owner.payload(&a, &net, "10.70.0.2").await;
    owner.payload(&b, &net, "10.70.0.3").await;
    owner.sh(&one, "ping -c 1 -W 5 10.70.0.3").await.unwrap();
    let ping = "ping -c 30 -i 0.1 10.70.0.3 > /tmp/alone &";
    owner.sh(&one, ping).await.unwrap();
    // A change that nobody has heard of when the owner dies: `b` hears nothing just now.
    b.pause();
    let name = json!({ "name": "late", "addIps": ["10.70.0.33"] });
    let (status, answer) =
        owner.patch(&format!("/gvpn/v1/net/{net}/members/10.70.0.3"), name).await;
    assert_eq!(status, 200, "{answer}");
    owner.kill();
    b.resume();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    owner.start().await;
    let output = "cat /tmp/alone | grep -q 'packets received'";
    owner.comes_true(&one, output).await;
    let output = owner.sh(&one, "cat /tmp/alone").await.unwrap();
    // Those of the pause may be lost; those of the time without an owner are not.
    let seen = output.lines().filter(|line| line.contains("seq=")).count();
    assert!(seen >= 15 && output.contains("seq=29"), "{output}");
    owner.comes_true(&one, "ping -c 1 -W 1 late && ping -c 1 -W 1 10.70.0.33").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_changes_nothing() {
    let rig = Rig::new().await;
    let (owner, a) = (rig.requestor().await, rig.provider("a").await);
    let net = owner.network("10.71.0.0/24").await;
    owner.add_node(&net, &a, "10.71.0.2").await;
    owner.add_node(&net, &a, "10.71.0.3").await;
    let at = format!("/gvpn/v1/net/{net}");
    let before = owner.get(&at).await.1;
    let member = format!("{at}/members/10.71.0.2");
    let rule = |rule: Value| (true, "/rules", rule, 400);
    for (post, path, body, status) in [
        (true, "/prefixes", json!({ "prefix": "10.71.0.128/25" }), 409),
        (true, "/prefixes", json!({ "prefix": "10.0.0.0/8" }), 409),
        (true, "/prefixes", json!({ "prefix": "224.0.0.0/24" }), 400),
        (true, "/prefixes", json!({ "prefix": "127.0.0.0/8" }), 400),
        (true, "/prefixes", json!({ "prefix": "10.72.0.0/33" }), 400),
        (true, "/prefixes", json!({ "prefix": "fe80::/64" }), 400),
        (true, "/prefixes", json!({ "prefix": "nonsense" }), 400),
        (true, "/members", json!({ "node": a.id, "ips": ["10.72.0.4"] }), 400),
        (true, "/members", json!({ "node": a.id, "ips": ["10.71.0.3"] }), 409),
        (true, "/members", json!({ "node": a.id, "ips": ["10.71.0.255"] }), 400),
        (true, "/members", json!({ "node": a.id, "name": "-bad-" }), 400),
        rule(json!({ "action": "deny", "from": { "group": "nobody" } })),
        rule(json!({ "action": "deny", "to": { "member": 77 } })),
        rule(json!({ "action": "deny", "ports": [{ "first": 1, "last": 2 }] })),
        rule(json!({ "action": "deny", "protocol": "tcp", "ports": [{ "first": 9, "last": 2 }] })),
        (false, "", json!({ "mtu": 100 }), 400),
        (false, "", json!({ "hosts": { "bad name": ["10.71.0.2"] } }), 400),
        (false, "", json!({ "routes": [{ "destination": "10.71.0.0/25", "via": 1 }] }), 400),
        (false, "", json!({ "routes": [{ "destination": "10.9.0.0/16", "via": 77 }] }), 400),
        (false, "/prefixes", json!({ "prefix": "10.71.0.0/24", "gateway": "10.9.0.1" }), 400),
        (false, "/prefixes", json!({ "prefix": "10.9.0.0/24", "gateway": "10.9.0.1" }), 404),
        (false, "/members/10.71.0.2", json!({ "ips": ["10.71.0.3"] }), 409),
        (false, "/members/10.71.0.2", json!({ "addIps": ["10.9.0.3"] }), 400),
        (false, "/members/10.71.0.99", json!({ "name": "nobody" }), 404),
    ] {
        let url = format!("{at}{path}");
        let answer = match post {
            true => owner.post(&url, body.clone()).await,
            false => owner.patch(&url, body.clone()).await,
        };
        assert_eq!(answer.0, status, "{path} {body}: {}", answer.1);
        assert!(answer.1["message"].as_str().is_some_and(|text| text.len() > 10), "{answer:?}");
        assert_eq!(owner.get(&at).await.1, before, "{path} {body}");
    }
    // Several changes at once, one of which cannot be.
    let half = json!({ "name": "fine", "addIps": ["10.71.0.3"] });
    assert_eq!(owner.patch(&member, half).await.0, 409);
    assert_eq!(owner.get(&at).await.1, before);
}
