//! Multicast and broadcast between payloads.

mod rig;

use std::collections::BTreeSet;

use rig::{Daemon, Rig, eventually};
use serde_json::json;

/// A dual-stack network with two payloads on each of two providers.
struct World {
    rig: Rig,
    owner: Daemon,
    providers: [Daemon; 2],
    net: String,
    /// Those at 10.65.0.2 and fd65::2 and so on.
    payloads: Vec<String>,
}

impl World {
    async fn new(programs: &[&str]) -> Self {
        let rig = Rig::new().await;
        programs.iter().for_each(|program| rig.install(program));
        let owner = rig.requestor().await;
        let providers = [rig.provider("a").await, rig.provider("b").await];
        let spec = json!({ "ip": "10.65.0.0/24", "prefixes": ["fd65::/64"] });
        let net = owner.post("/gvpn/v1/net", spec).await.1["id"].as_str().unwrap().to_owned();
        let mut payloads = Vec::new();
        for n in 2..6 {
            let ip = format!("10.65.0.{n}");
            let activity = owner.payload(&providers[n / 4], &net, &ip).await;
            let edit = json!({ "addIps": [format!("fd65::{n}")] });
            owner.set(&format!("{net}/members/{ip}"), edit).await;
            owner.comes_true(&activity, &format!("ip addr | grep -q fd65::{n}/64")).await;
            payloads.push(activity);
        }
        Self { rig, owner, providers, net, payloads }
    }

    /// A counter of a provider's drops.
    async fn dropped(&self, provider: usize, reason: &str) -> u64 {
        let page = self.providers[provider].get_text("/metrics").await;
        let line = page.lines().find(|line| line.contains(&format!("reason=\"{reason}\"")));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn multicast_and_broadcast_reach_payloads() {
    let World { rig: _rig, owner, providers: _providers, payloads, .. } =
        World::new(&["/usr/bin/socat"]).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn multicast_dns_finds_a_printer() {
    let World { rig: _rig, owner, providers: _providers, payloads, .. } =
        World::new(&["/usr/sbin/avahi-daemon", "/usr/bin/socat"]).await;
    // A TUN is a point-to-point interface as far as the kernel knows.
    let printer = "mkdir -p /run && echo avahi:x:71:71::/:/bin/sh >> /etc/passwd &&
        echo avahi:x:71: >> /etc/group && cat > /tmp/avahi.conf <<END
[server]
host-name=printer
enable-dbus=no
allow-point-to-point=yes
allow-interfaces=eth0
[wide-area]
enable-wide-area=no
END
        avahi-daemon --no-drop-root --no-chroot --no-rlimits -f /tmp/avahi.conf >/tmp/log 2>&1 &";
    owner.sh(&payloads[2], printer).await.unwrap();
    // One-shot queries (RFC 6762, section 5.1): type A or AAAA, answered to whoever asks.
    let query = |kind: &str| {
        let head = r"\x12\x34\0\0\0\1\0\0\0\0\0\0";
        format!(r"printf '{head}\7printer\5local\0\0{kind}\0\1'")
    };
    let v4 = |n| format!("UDP4-DATAGRAM:224.0.0.251:5353,ip-multicast-if=10.65.0.{n}");
    let v6 = "UDP6-DATAGRAM:[ff02::fb]:5353,so-bindtodevice=eth0".to_owned();
    for (asker, to, kind, answer) in [
        (0, v4(2), r"\1", "0a410004"),
        (3, v4(5), r"\34", "fd650000000000000000000000000004"),
        (1, v6, r"\34", "fd650000000000000000000000000004"),
    ] {
        let show = r#"hexdump -v -e '/1 "%02x"'"#;
        let ask = format!("{} | socat -t 2 - {to} | {show}", query(kind));
        eventually(&format!("{to} answers"), async || {
            let told = owner.sh(&payloads[asker], &ask).await;
            told.is_ok_and(|told| told.contains(answer))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_discover_each_other() {
    let World { rig: _rig, owner, providers: _providers, payloads, .. } =
        World::new(&["/usr/bin/socat"]).await;
    // As DDS does: each announces itself to a group, again and again, and listens to the others.
    for (activity, n) in payloads.iter().zip(2..) {
        for (name, group) in [
            (
                "v4",
                format!(
                    "UDP4-DATAGRAM:239.255.0.1:7400,bind=:7400,ip-add-membership=239.255.0.1:10.65.0.{n},ip-multicast-if=10.65.0.{n}"
                ),
            ),
            (
                "v6",
                "UDP6-DATAGRAM:[ff15::7400]:7401,bind=[::]:7401,ipv6-join-group=[ff15::7400]:eth0"
                    .to_owned(),
            ),
        ] {
            let participant = format!(
                "(while sleep 0.3; do echo participant {n}; done) | \
                 socat - '{group}' >> /tmp/{name} 2>/tmp/{name}.log &"
            );
            owner.sh(activity, &participant).await.unwrap();
        }
    }
    for (activity, n) in payloads.iter().zip(2..) {
        for name in ["v4", "v6"] {
            let want: BTreeSet<_> =
                (2..6).filter(|m| *m != n).map(|m| format!("participant {m}")).collect();
            eventually(&format!("{n} hears all others, {name}"), async || {
                let heard = owner.sh(activity, &format!("cat /tmp/{name}")).await.unwrap();
                let heard: BTreeSet<_> = heard.lines().map(str::to_owned).collect();
                heard.is_superset(&want)
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn iperf_sends_to_groups_within_the_limit() {
    let world = World::new(&["/usr/bin/iperf"]).await;
    let (owner, payloads) = (&world.owner, &world.payloads);
    for (name, group, family) in [("v4", "239.9.9.9", ""), ("v6", "ff15::99%eth0", "-V")] {
        for activity in &payloads[1..3] {
            let serve = format!("iperf -s -u {family} -B {group} -y C >> /tmp/{name} 2>&1 &");
            owner.sh(activity, &serve).await.unwrap();
        }
        let send = format!("iperf -c {group} -u {family} -T 4 -b 200pps -l 500 -t 2");
        for activity in &payloads[1..3] {
            // The first reports of a membership may come later than the first packets.
            eventually(&format!("{group} is heard"), async || {
                owner.sh(&payloads[0], &send).await.unwrap();
                owner.sh(activity, &format!("test -s /tmp/{name}")).await.is_ok()
            })
            .await;
        }
    }
    let before = world.dropped(0, "rate_limited").await;
    let policy = json!({ "policy": { "multicastPacketsPerSecond": 50 } });
    owner.set(&world.net, policy).await;
    owner.sh(&payloads[0], "iperf -c 239.9.9.9 -u -T 4 -b 1000pps -l 500 -t 2").await.unwrap();
    let dropped = world.dropped(0, "rate_limited").await - before;
    assert!(dropped > 500, "{dropped} packets over the limit were dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_joins_is_bounded_and_counted() {
    let world = World::new(&["/usr/bin/socat"]).await;
    let (owner, payloads) = (&world.owner, &world.payloads);
    let join = |n: &str, port: &str, file: &str| {
        format!(
            "socat -u UDP4-RECV:{port},ip-add-membership=239.7.0.{n}:10.65.0.4 {file} >/dev/null 2>&1 &"
        )
    };
    let first = join("1", "6001", "OPEN:/tmp/first,creat,append");
    owner.sh(&payloads[2], &first).await.unwrap();
    let send = "echo hello | socat - UDP4-DATAGRAM:239.7.0.1:6001,ip-multicast-if=10.65.0.2";
    let heard = async || {
        owner.sh(&payloads[0], send).await.unwrap();
        owner.sh(&payloads[2], "grep -q hello /tmp/first").await.is_ok()
    };
    eventually("the first group is heard", heard).await;
    let flood =
        format!("for n in $(seq 2 120); do {} done", join("$n", "$((6000+n))", "OPEN:/dev/null"));
    owner.sh(&payloads[2], &flood).await.unwrap();
    eventually("memberships are refused", async || world.dropped(1, "group_refused").await >= 40)
        .await;
    // What was there before goes on.
    owner.sh(&payloads[2], ": > /tmp/first").await.unwrap();
    eventually("the first group is still heard", heard).await;
}
