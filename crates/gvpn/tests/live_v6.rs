//! IPv6 and dual stack from end to end.

mod rig;

use std::{fs, process::Command, time::Duration};

use http_body_util::BodyExt;
use rig::{PATIENCE, Rig};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_network_may_have_ipv6_only() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    // Golem's own API, with a prefix of the other family.
    let net = owner.network("fd76:1::/64").await;
    let info = owner.get(&format!("/net-api/v1/net/{net}")).await.1;
    assert_eq!((&info["ip"], &info["gateway"]), (&json!("fd76:1::/64"), &json!("fd76:1::1")));
    let one = owner.payload(&a, &net, "fd76:1::2").await;
    let two = owner.payload(&b, &net, "fd76:1::3").await;
    owner.sh(&one, "ping -c 2 -W 5 fd76:1::3").await.unwrap();
    owner.sh(&one, "ping -c 1 -W 5 fd76:1::1").await.expect("the owner is at the gateway");
    owner.sh(&two, "echo six > /www/page; httpd -p 80 -h /www").await.unwrap();
    let page = owner.sh(&one, "wget -q -O - 'http://[fd76:1::3]/page'").await;
    assert_eq!(page.as_deref(), Ok("six\n"));
    // Larger than any packet between the two nodes: UDP in fragments, and a whole segment's worth.
    owner.sh(&one, "ping -c 1 -W 5 -s 1232 fd76:1::3").await.unwrap();
    owner.sh(&one, "ping -c 1 -W 5 -s 4000 fd76:1::3").await.unwrap();

    // Nothing configures itself: one address of the network, one that follows from the member.
    let addresses = owner.sh(&one, "ip -6 addr show dev eth0").await.unwrap();
    assert_eq!(addresses.matches("inet6").count(), 2, "{addresses}");
    assert!(addresses.contains("fd76:1::2/64") && addresses.contains("fe80::6776:706e:0:1/64"));
    let settings = owner
        .sh(&one, "cd /proc/sys/net/ipv6/conf/eth0; cat autoconf accept_ra use_tempaddr accept_dad")
        .await
        .unwrap();
    assert_eq!(settings.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "0"]);
    owner.sh(&one, "ping -c 1 -W 5 -I eth0 fe80::6776:706e:0:2").await.unwrap();
    // Nobody is there.
    let nobody = owner.sh(&one, "ping -c 1 -W 2 fd76:1::77").await.unwrap_err();
    assert!(nobody.contains("0 packets received"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dual_stack_addresses_are_made_for_members() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.77.0.0/24").await;
    let one = owner.payload(&a, &net, "10.77.0.2").await;
    let prefixes = format!("/gvpn/v1/net/{net}/prefixes");
    let (status, info) = owner.post(&prefixes, json!({ "generate": true })).await;
    assert_eq!(status, 200, "{info}");
    let ula = info["prefixes"][1].as_str().unwrap().to_owned();
    assert!(ula.starts_with("fd") && ula.ends_with("::/64"), "{ula}");
    // A second one is another one.
    let (_, more) = owner.post(&prefixes, json!({ "generate": true })).await;
    assert_ne!(more["prefixes"][2], ula, "{more}");
    let second = more["prefixes"][2].as_str().unwrap();
    let path = format!("{prefixes}?prefix={}", second.replace('/', "%2F"));
    let gone = owner.delete(&path).await;
    assert_eq!(gone.0, 200, "{gone:?}");

    // Addresses that follow from node and name: the same again after the member was removed.
    let members = format!("/gvpn/v1/net/{net}/members");
    let spec = json!({ "node": b.id, "name": "db", "derived": true });
    let (status, first) = owner.post(&members, spec.clone()).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(first["ips"].as_array().map(Vec::len), Some(2), "one of each family: {first}");
    assert_eq!(owner.delete(&format!("{members}/db?wait=60")).await.0, 200);
    let (_, again) = owner.post(&format!("{members}?wait=60"), spec).await;
    assert_eq!(first["ips"], again["ips"]);
    assert_ne!(first["id"], again["id"]);
    let [v4, v6] = [0, 1].map(|n| again["ips"][n].as_str().unwrap().to_owned());
    let two = owner.activity(&b).await;
    let results = owner.exec(&two, json!([rig::deploy(&net, &v4), { "start": {} }])).await;
    assert!(results.iter().all(|result| result["result"] == "Ok"), "{results:?}");

    // The first payload has IPv6 as soon as its member has.
    let own = ula.replace("::/64", "::2");
    owner.set(&format!("{net}/members/10.77.0.2"), json!({ "addIps": [own] })).await;
    owner.comes_true(&one, &format!("ping -c 1 -W 1 {v6} && ping -c 1 -W 1 {v4}")).await;
    owner.comes_true(&two, &format!("ping -c 1 -W 1 {own} && ping -c 1 -W 1 10.77.0.2")).await;
    owner.comes_true(&one, "ping -6 -c 1 -W 1 db && ping -4 -c 1 -W 1 db").await;

    // What would happen to an IPv6 packet, and what did.
    let ask = json!({ "source": own, "destination": v6, "protocol": "tcp", "port": 80 });
    let trace = owner.post(&format!("/gvpn/v1/net/{net}/trace"), ask).await.1;
    assert_eq!(trace["trace"]["outcome"]["delivered"], again["id"], "{trace}");
    let stranger = ula.replace("::/64", "::99");
    let ask = json!({ "source": own, "destination": stranger, "protocol": "udp", "port": 5 });
    let trace = owner.post(&format!("/gvpn/v1/net/{net}/trace"), ask).await.1;
    assert_eq!(trace["trace"]["outcome"]["dropped"], "no_such_member", "{trace}");
    let text = captured(&rig, &owner, &net, &v6, &one).await;
    assert!(text.contains(&own) && text.contains("Echo (ping) reply"), "{text}");
}

/// What tshark makes of a capture of echoes with `host`.
async fn captured(rig: &Rig, owner: &rig::Daemon, net: &str, host: &str, activity: &str) -> String {
    let path = format!("/gvpn/v1/net/{net}/capture?filter=icmp6%20and%20host%20{host}");
    let response = owner.stream(&path).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let file = rig.path("v6.pcapng");
    let (mut bytes, start) = (Vec::new(), std::time::Instant::now());
    loop {
        assert!(start.elapsed() < PATIENCE, "nothing was captured");
        owner.sh(activity, &format!("ping -c 1 -W 2 {host}")).await.ok();
        while let Ok(Some(frame)) =
            tokio::time::timeout(Duration::from_millis(300), body.frame()).await
        {
            bytes.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
        fs::write(&file, &bytes).unwrap();
        let output = Command::new("tshark")
            .arg("-r")
            .arg(&file)
            .args(["-T", "fields", "-e", "ipv6.src", "-e", "ipv6.dst", "-e", "_ws.col.Info"])
            .output()
            .expect("tshark is installed (scripts/setup)");
        let text = String::from_utf8(output.stdout).unwrap();
        if text.contains("request") && text.contains("reply") {
            return text;
        }
    }
}
