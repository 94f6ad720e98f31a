//! Captures of what payloads send, read by tshark.

mod rig;

use std::{fs, path::Path, process::Command, time::Duration};

use http_body_util::BodyExt;
use rig::{PATIENCE, Rig};

#[tokio::test(flavor = "multi_thread")]
async fn captures_show_what_payloads_send() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.67.0.0/24").await;
    let one = owner.payload(&a, &net, "10.67.0.2").await;
    owner.payload(&b, &net, "10.67.0.3").await;
    let path = format!("/gvpn/v1/net/{net}/capture");
    assert_eq!(owner.get(&format!("{path}?filter=nonsense")).await.0, 400);
    let response = owner.stream(&format!("{path}?filter=icmp%20and%20host%2010.67.0.3")).await;
    assert_eq!(response.headers()["content-type"], "application/x-pcapng");
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    // The captures at the members' nodes begin shortly after the answer does.
    let both_ways = |bytes: &[u8]| {
        let seen = |from: [u8; 4], to: [u8; 4]| {
            let ends = [from, to].concat();
            bytes.windows(8).any(|window| window == ends)
        };
        seen([10, 67, 0, 2], [10, 67, 0, 3]) && seen([10, 67, 0, 3], [10, 67, 0, 2])
    };
    let start = std::time::Instant::now();
    while !both_ways(&bytes) {
        assert!(start.elapsed() < PATIENCE, "nothing was captured");
        owner.sh(&one, "ping -c 1 -W 2 10.67.0.3; ping -c 1 -W 2 10.67.0.1").await.ok();
        while let Ok(Some(frame)) =
            tokio::time::timeout(Duration::from_millis(300), body.frame()).await
        {
            bytes.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }
    let file = rig.path("capture.pcapng");
    fs::write(&file, &bytes).unwrap();
    let text = tshark(&file);
    assert!(text.contains("10.67.0.2") && text.contains("Echo (ping) reply"), "{text}");
    assert!(!text.contains("10.67.0.1\t"), "the filter holds: {text}");
}

/// What tshark makes of a capture.
fn tshark(file: &Path) -> String {
    let columns = "ip.src,ip.dst,_ws.col.Info";
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields"]);
    for column in columns.split(',') {
        command.args(["-e", column]);
    }
    let output = command.output().expect("tshark is installed (scripts/setup)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
