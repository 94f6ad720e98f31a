//! Names of members, asked from payloads.

mod rig;

use rig::Rig;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn names_are_answered_and_others_refused() {
    let rig = Rig::new().await;
    let (owner, a) = (rig.requestor().await, rig.provider("a").await);
    let spec = json!({ "ip": "10.62.0.0/24", "name": "lab" });
    let net = owner.post("/gvpn/v1/net", spec).await.1["id"].as_str().unwrap().to_owned();
    let one = owner.payload(&a, &net, "10.62.0.2").await;
    owner.payload(&a, &net, "10.62.0.3").await;
    let services = json!([{ "name": "http", "port": 8080 }]);
    let edit = json!({ "name": "web", "services": services });
    owner.set(&format!("{net}/members/10.62.0.3"), edit).await;
    let lookup = async |question: &str| {
        // busybox's nslookup fails where any answer is missing: what it prints counts.
        let command = format!("nslookup {question} 10.62.0.1 2>&1 || true");
        owner.sh(&one, &command).await.unwrap()
    };
    for (question, answer) in [
        ("-type=a web.lab.vpn", "Address: 10.62.0.3"),
        (&format!("-type=a web.{net}.vpn"), "Address: 10.62.0.3"),
        ("-type=a member-1.lab.vpn", "Address: 10.62.0.2"),
        ("10.62.0.3", "name = web.lab.vpn"),
        ("-type=srv _http._tcp.web.lab.vpn", "8080 web.lab.vpn"),
        ("-type=a nobody.lab.vpn", "NXDOMAIN"),
        ("-type=a example.com", "REFUSED"),
    ] {
        let text = lookup(question).await;
        assert!(text.contains(answer), "{question}: {text}");
    }
    // At once, because answers are not kept.
    owner.set(&format!("{net}/members/web"), json!({ "ips": ["10.62.0.33"] })).await;
    let text = lookup("-type=a web.lab.vpn").await;
    assert!(text.contains("10.62.0.33") && !text.contains("Address: 10.62.0.3\n"), "{text}");
}
