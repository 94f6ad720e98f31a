//! Names of members, asked from payloads by dig and by the C library.

mod rig;

use std::net::{SocketAddr, UdpSocket};

use rig::{Daemon, Rig};
use serde_json::json;

/// Someone else's name, and its address.
const OUTSIDE: (&str, [u8; 4]) = ("outside.example", [192, 0, 2, 7]);

#[tokio::test(flavor = "multi_thread")]
async fn names_are_answered_and_follow_changes() {
    let rig = Rig::new().await;
    let (owner, a) = (rig.requestor().await, provider(&rig, "a", "system").await);
    let spec = json!({ "ip": "10.62.0.0/24", "name": "lab", "prefixes": ["fd62::/64"] });
    let net = owner.post("/gvpn/v1/net", spec).await.1["id"].as_str().unwrap().to_owned();
    let one = owner.payload(&a, &net, "10.62.0.2").await;
    owner.payload(&a, &net, "10.62.0.3").await;
    let services =
        json!([{ "name": "http", "port": 8080 }, { "name": "dns", "udp": true, "port": 53 }]);
    let edit = json!({ "name": "web", "addIps": ["fd62::3"], "services": services });
    owner.set(&format!("{net}/members/10.62.0.3"), edit).await;
    let dig = async |question: &str| {
        owner.sh(&one, &format!("dig +tries=2 @10.62.0.1 {question}")).await.unwrap()
    };
    for (question, answers) in [
        ("web.lab.vpn A", &["status: NOERROR", "flags: qr aa", "A\t10.62.0.3"][..]),
        ("web.lab.vpn AAAA", &["AAAA\tfd62::3"]),
        ("WEB.Lab.vpn A", &["A\t10.62.0.3"]),
        ("web A", &["A\t10.62.0.3"]),
        (&format!("web.{net}.vpn A"), &["A\t10.62.0.3"]),
        ("member-1.lab.vpn A", &["A\t10.62.0.2"]),
        ("gateway.lab.vpn A", &["A\t10.62.0.1"]),
        ("-x 10.62.0.3", &["PTR\tweb.lab.vpn."]),
        ("-x fd62::3", &["PTR\tweb.lab.vpn."]),
        ("_http._tcp.web.lab.vpn SRV", &["SRV\t0 0 8080 web.lab.vpn."]),
        ("_http._tcp.lab.vpn SRV", &["SRV\t0 0 8080 web.lab.vpn."]),
        ("_dns._udp.lab.vpn SRV", &["SRV\t0 0 53 web.lab.vpn."]),
        ("web.lab.vpn MX", &["status: NOERROR", "ANSWER: 0", "SOA\tgateway.lab.vpn."]),
        ("nobody.lab.vpn A", &["status: NXDOMAIN", "SOA\tgateway.lab.vpn."]),
        ("_ftp._tcp.web.lab.vpn SRV", &["status: NXDOMAIN"]),
        ("-x 10.62.0.77", &["status: NXDOMAIN"]),
        ("web.other.vpn A", &["status: REFUSED"]),
        ("example.com A", &["status: REFUSED"]),
        ("-x 8.8.8.8", &["status: REFUSED"]),
    ] {
        let text = dig(question).await;
        for answer in answers {
            assert!(squeezed(&text).contains(&squeezed(answer)), "{question}, {answer}: {text}");
        }
    }
    // What does not fit into a datagram is had over TCP, as dig tries by itself.
    let many: Vec<_> = (0..60).map(|n| json!({ "name": "job", "port": 9000 + n })).collect();
    owner.set(&format!("{net}/members/10.62.0.2"), json!({ "services": many })).await;
    let all = dig("_job._tcp.lab.vpn SRV").await;
    assert!(all.contains("ANSWER: 60") && all.contains("Truncated, retrying in TCP"), "{all}");
    assert!(dig("+tcp web.lab.vpn A +short").await.contains("10.62.0.3"));
    // Nothing else is there.
    owner.sh(&one, "nc -w 3 10.62.0.1 54 < /dev/null").await.unwrap_err();
    // At once, because answers are kept for a second at most.
    owner.set(&format!("{net}/members/web"), json!({ "ips": ["10.62.0.33", "fd62::33"] })).await;
    assert_eq!(dig("web.lab.vpn A +short").await, "10.62.0.33\n");
    assert_eq!(dig("web.lab.vpn AAAA +short").await, "fd62::33\n");
    assert!(dig("-x 10.62.0.3").await.contains("NXDOMAIN"));
    // The C library finds names in /etc/hosts and by the gateway.
    owner.comes_true(&one, "getent hosts web.lab.vpn | grep -q '^fd62::33 '").await;
    owner.comes_true(&one, "getent ahostsv4 web | grep -q '^10.62.0.33 '").await;
    owner.sh(&one, "getent ahostsv4 member-1.lab.vpn | grep -q '^10.62.0.2 '").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_are_asked_elsewhere_if_owner_and_provider_allow_it() {
    let rig = Rig::new().await;
    let owner = rig.requestor().await;
    let (willing, unwilling, broken) = (
        provider(&rig, "a", &resolver().to_string()).await,
        provider(&rig, "b", "none").await,
        // Nobody listens there.
        provider(&rig, "c", "127.0.0.1:1").await,
    );
    let net = owner.network("10.74.0.0/24").await;
    let one = owner.payload(&willing, &net, "10.74.0.2").await;
    let two = owner.payload(&unwilling, &net, "10.74.0.3").await;
    let three = owner.payload(&broken, &net, "10.74.0.4").await;
    let ask = async |activity: &str| {
        let command = format!("dig +tries=1 @10.74.0.1 {} A", OUTSIDE.0);
        squeezed(&owner.sh(activity, &command).await.unwrap())
    };
    for activity in [&one, &two, &three] {
        assert!(ask(activity).await.contains("status: REFUSED"), "the owner has not allowed it");
    }
    owner.set(&net, json!({ "policy": { "dnsForward": true } })).await;
    let text = ask(&one).await;
    assert!(text.contains("status: NOERROR") && text.contains("A 192.0.2.7"), "{text}");
    let command = format!("getent ahostsv4 {} | grep -q '^192.0.2.7 '", OUTSIDE.0);
    owner.sh(&one, &command).await.unwrap();
    // What is this network's, or some network's, is nobody else's.
    let own = owner.sh(&one, "dig @10.74.0.1 web.other.vpn A").await.unwrap();
    assert!(own.contains("status: REFUSED"), "{own}");
    assert!(ask(&two).await.contains("status: REFUSED"), "the provider does not allow it");
    assert!(ask(&three).await.contains("status: SERVFAIL"), "the resolver does not answer");
}

/// A provider with this resolver, whose payloads have dig and getent.
async fn provider(rig: &Rig, name: &str, resolver: &str) -> Daemon {
    rig.install("/usr/bin/dig");
    rig.install("/usr/bin/getent");
    let images = rig.images();
    let images = images.to_str().unwrap();
    let args = ["--role", "provider", "--image-dir", images, "--resolver", resolver];
    rig.daemon(name, &args).await
}

/// A DNS server that knows one name.
fn resolver() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let end = 12 + OUTSIDE.0.len() + 2 + 4;
            assert!(buffer[..len].windows(7).any(|text| text == b"outside"));
            let mut answer = buffer[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(OUTSIDE.1);
            let _ = socket.send_to(&answer, from);
        }
    });
    at
}

/// With one space for any white space.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
