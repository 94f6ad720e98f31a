//! Files into and out of payloads.

mod rig;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use gvpn_model::ResultKind;
use rig::{Activity, Rig, assert_ok};

fn transfer(from: &str, to: &str) -> String {
    serde_json::json!([{"transfer": {"from": from, "to": to}}]).to_string()
}

async fn refused(activity: &Activity, from: &str, to: &str) -> String {
    let results = activity.script(&transfer(from, to), vec![]).await;
    assert_eq!(results[0].result, ResultKind::Error, "{from} {to}");
    results[0].message.clone().unwrap()
}

type Store = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// A web server of one thread: GET and PUT of files in memory; `/cut` promises more than it gives.
fn web_server(files: Store) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                if header.trim().is_empty() {
                    break;
                }
                if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let respond = |status: &str, length: usize, body: &[u8]| {
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                let mut stream = reader.get_ref();
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            };
            if words[0] == "PUT" {
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                files.lock().unwrap().insert(words[1].clone(), body);
                let mut stream = reader.get_ref();
                stream
                    .write_all(
                        b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    )
                    .unwrap();
            } else if words[1] == "/cut" {
                respond("200 OK", 1000, b"short");
            } else {
                match files.lock().unwrap().get(&words[1]) {
                    Some(body) => respond("200 OK", body.len(), body),
                    None => respond("404 Not Found", 0, b""),
                }
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_both_ways() {
    let rig = Rig::new();
    let activity = rig.ready(vec![]).await;
    let files = Store::default();
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i ^ (i >> 7)) as u8).collect();
    files.lock().unwrap().insert("/file".into(), content.clone());
    let server = web_server(files.clone());
    let get = transfer(&format!("http://{server}/file"), "container:/srv/new/dir/file");
    assert_ok(&activity.script(&get, vec![]).await);
    assert_eq!(activity.shell("wc -c < /srv/new/dir/file").await.trim(), "3000000");
    let put = transfer("container:/srv/new/dir/file", &format!("http://{server}/back"));
    assert_ok(&activity.script(&put, vec![]).await);
    assert!(files.lock().unwrap()["/back"] == content);

    let http = |path: &str| format!("http://{server}{path}");
    assert!(refused(&activity, &http("/nothing"), "container:/x").await.contains("404"));
    refused(&activity, &http("/cut"), "container:/x").await;
    refused(&activity, "http://127.0.0.1:1/", "container:/x").await;
    activity.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_daemon_and_within_the_payload() {
    let rig = Rig::new();
    let activity = rig.ready(vec![]).await;
    rig.files.lock().unwrap().insert("gftp://0x1/a".into(), b"from afar".to_vec());
    assert_ok(&activity.script(&transfer("gftp://0x1/a", "container:/tmp/a"), vec![]).await);
    assert_ok(&activity.script(&transfer("container:/tmp/a", "container:/root/b"), vec![]).await);
    assert_ok(&activity.script(&transfer("container:/root/b", "gftp://0x1/b"), vec![]).await);
    assert_eq!(rig.files.lock().unwrap()["gftp://0x1/b"], b"from afar");
    // Overwriting a longer file leaves none of it.
    activity.shell("head -c 100000 /dev/zero > /tmp/a").await;
    assert_ok(&activity.script(&transfer("gftp://0x1/a", "container:/tmp/a"), vec![]).await);
    assert_eq!(activity.shell("cat /tmp/a").await, "from afar");
    activity.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_set_no_traps() {
    let rig = Rig::new();
    let activity = rig.ready(vec![]).await;
    rig.files.lock().unwrap().insert("gftp://0x1/a".into(), b"x".to_vec());
    activity
        .shell("mkfifo /fifo; mkdir /d; ln -s /proc/1/root/etc/passwd /link; ln -s /etc/passwd /ok")
        .await;
    refused(&activity, "container:/fifo", "gftp://0x1/f").await;
    refused(&activity, "gftp://0x1/a", "container:/fifo").await;
    refused(&activity, "gftp://0x1/a", "container:/d").await;
    refused(&activity, "container:/dev/zero", "gftp://0x1/z").await;
    refused(&activity, "container:/missing", "gftp://0x1/m").await;
    refused(&activity, "gftp://0x1/none", "container:/x").await;
    refused(&activity, "file:///etc/passwd", "container:/x").await;
    refused(&activity, "http://a/", "http://b/").await;
    // A link leads where it leads for the payload.
    assert_ok(&activity.script(&transfer("container:/ok", "gftp://0x1/ok"), vec![]).await);
    assert_eq!(rig.files.lock().unwrap()["gftp://0x1/ok"], b"root:x:0:0:root:/root:/bin/sh\n");
    activity.unit.terminate().await;
}
