//! Multicast and broadcast between payloads.

mod rig;

use rig::{Rig, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn multicast_and_broadcast_reach_payloads() {
    let rig = Rig::new().await;
    rig.install("/usr/bin/socat");
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.65.0.0/24").await;
    let (status, _) =
        owner.post(&format!("/gvpn/v1/net/{net}/prefixes"), json!({ "prefix": "fd65::/64" })).await;
    assert_eq!(status, 200);
    let mut payloads = Vec::new();
    for (n, provider) in [(2, &a), (3, &a), (4, &b), (5, &b)] {
        let ip = format!("10.65.0.{n}");
        let activity = owner.payload(provider, &net, &ip).await;
        let edit = json!({ "addIps": [format!("fd65::{n}")] });
        owner.set(&format!("{net}/members/{ip}"), edit).await;
        owner.comes_true(&activity, &format!("ip addr | grep -q fd65::{n}/64")).await;
        payloads.push(activity);
    }
    let [sender, here, there, deaf] = [0, 1, 2, 3].map(|n| payloads[n].clone());
    for (activity, n) in [(&here, 3), (&there, 4)] {
        let listen = format!(
            "socat -u UDP4-RECV:5000,ip-add-membership=239.1.2.3:10.65.0.{n} OPEN:/tmp/v4,creat,append >/dev/null 2>&1 &
             socat -u UDP6-RECV:5001,ipv6-join-group=[ff15::123]:eth0 OPEN:/tmp/v6,creat,append >/dev/null 2>&1 &"
        );
        owner.sh(activity, &listen).await.unwrap();
    }
    // Hears what is sent to its address and to everybody, but has joined nothing.
    let listen = "socat -u UDP4-RECV:5000 OPEN:/tmp/v4,creat,append >/dev/null 2>&1 &
                  socat -u UDP6-RECV:5001 OPEN:/tmp/v6,creat,append >/dev/null 2>&1 &";
    owner.sh(&deaf, listen).await.unwrap();
    let send = async |to: &str| {
        let command = format!("echo {to} | socat - {to}");
        owner.sh(&sender, &command).await.unwrap();
    };
    let heard = async |activity: &str, file: &str| {
        owner.sh(activity, &format!("cat /tmp/{file} 2>/dev/null || true")).await.unwrap()
    };
    for (to, file) in [
        ("UDP4-DATAGRAM:239.1.2.3:5000,ip-multicast-if=10.65.0.2", "v4"),
        ("UDP6-DATAGRAM:[ff15::123]:5001", "v6"),
    ] {
        for activity in [&here, &there] {
            eventually(&format!("{to} is heard"), async || {
                send(to).await;
                !heard(activity, file).await.is_empty()
            })
            .await;
        }
    }
    send("UDP4-DATAGRAM:255.255.255.255:5000,broadcast").await;
    for activity in [&here, &there, &deaf] {
        eventually("the broadcast is heard", async || {
            heard(activity, "v4").await.contains("255.255.255.255")
        })
        .await;
    }
    send("UDP4-DATAGRAM:10.65.0.255:5000,broadcast").await;
    eventually("the directed broadcast is heard", async || {
        heard(&deaf, "v4").await.contains("10.65.0.255")
    })
    .await;
    let text = heard(&deaf, "v4").await + &heard(&deaf, "v6").await;
    assert!(!text.contains("239.1.2.3") && !text.contains("ff15"), "it did not join: {text}");
    // Each copy came once.
    let text = heard(&there, "v4").await;
    assert_eq!(text.matches("10.65.0.255").count(), 1, "{text}");
}
