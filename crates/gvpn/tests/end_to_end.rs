//! The main job on real payloads: networks, activities, the gate, and everything gone at the end.

mod rig;

use futures::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use rig::{Rig, alive, deploy, eventually, run};
use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

#[tokio::test(flavor = "multi_thread")]
async fn payloads_talk_the_gate_reaches_them_and_nothing_is_left() {
    let rig = Rig::new().await;
    let (requestor, a, b) =
        (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = requestor.network("10.40.0.0/24").await;
    let one = requestor.payload(&a, &net, "10.40.0.2").await;
    let two = requestor.payload(&b, &net, "10.40.0.3").await;
    // A second activity of the same provider in the same network.
    let three = requestor.payload(&b, &net, "10.40.0.4").await;
    for (from, to) in [(&one, "10.40.0.3"), (&two, "10.40.0.4"), (&three, "10.40.0.2")] {
        requestor.sh(from, &format!("ping -c 2 -W 5 {to}")).await.unwrap();
    }
    // The requestor's own address answers too.
    let owner = async || requestor.sh(&one, "ping -c 1 -W 2 10.40.0.1").await.is_ok();
    eventually("the owner's address answers", owner).await;

    requestor.sh(&one, "echo it works > /www/page; httpd -p 80 -h /www").await.unwrap();
    let page = requestor.sh(&two, "wget -q -O - http://10.40.0.2/page").await;
    assert_eq!(page.as_deref(), Ok("it works\n"));
    let path = format!("/net-api/v1/net/{net}/tcp/10.40.0.2/80");
    let (mut socket, _) = connect_async(requestor.websocket(&path)).await.unwrap();
    let list = requestor.get(&format!("/net-api/v1/net/{net}/tcp")).await.1;
    assert_eq!((&list[0]["protocol"], &list[0]["remoteIp"]), (&json!(6), &json!("10.40.0.2")));
    socket.send(Message::text("GET /page HTTP/1.0\r\n\r\n")).await.unwrap();
    let mut page = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            page.extend_from_slice(&bytes);
        }
    }
    assert!(String::from_utf8_lossy(&page).ends_with("it works\n"));
    eventually("the connection is gone", async || {
        requestor.get(&format!("/net-api/v1/net/{net}/tcp")).await.1 == json!([])
    })
    .await;

    let (ours, theirs) = (requestor.descendants(), [a.descendants(), b.descendants()].concat());
    assert!(!ours.is_empty() && theirs.len() >= 6, "{ours:?} {theirs:?}");
    for activity in [&one, &two, &three] {
        let path = format!("/activity-api/v1/activity/{activity}");
        assert_eq!(requestor.delete(&path).await, (200, Value::Null));
        assert_eq!(requestor.delete(&path).await, (200, Value::Null));
        assert_eq!(requestor.state(activity).await, "Terminated");
    }
    assert_eq!(requestor.delete(&format!("/net-api/v1/net/{net}")).await, (200, Value::Null));
    eventually("no process is left", async || alive(&theirs).is_empty() && alive(&ours).is_empty())
        .await;
    for provider in [&a, &b] {
        let left = std::fs::read_dir(provider.dir().join("activities")).unwrap().count();
        assert_eq!(left, 0);
        eventually("the provider has left the network", async || {
            provider.get("/gvpn/v1/status").await.1["memberships"] == 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_change_under_running_payloads() {
    let rig = Rig::new().await;
    let (requestor, a, b) =
        (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = requestor.network("10.41.0.0/24").await;
    let one = requestor.payload(&a, &net, "10.41.0.2").await;
    // Added late: reached from a payload that was deployed before.
    let two = requestor.payload(&b, &net, "10.41.0.3").await;
    requestor.sh(&one, "ping -c 1 -W 5 10.41.0.3").await.unwrap();

    let members = format!("/gvpn/v1/net/{net}/members");
    let all = requestor.get(&members).await.1;
    let member = all.as_array().unwrap().iter().find(|m| m["node"] == b.id.as_str()).unwrap();
    let edit = json!({ "ips": ["10.41.0.33"], "name": "moved" });
    let (status, answer) = requestor.patch(&format!("{members}/{}", member["id"]), edit).await;
    assert_eq!(status, 200, "{answer}");
    eventually("the new address is reached", async || {
        requestor.sh(&one, "ping -c 1 -W 1 10.41.0.33").await.is_ok()
    })
    .await;
    requestor.sh(&one, "ping -c 1 -W 1 10.41.0.3").await.unwrap_err();
    requestor.sh(&one, "ping -c 1 -W 1 moved").await.unwrap();
    assert!(requestor.sh(&two, "ip addr").await.unwrap().contains("10.41.0.33/24"));

    // A second network for a payload that runs.
    let other = requestor.network("10.42.0.0/24").await;
    for (activity, provider, ip) in [(&one, &a, "10.42.0.2"), (&two, &b, "10.42.0.3")] {
        requestor.add_node(&other, provider, ip).await;
        let body = json!({ "network": other, "ip": ip });
        let (status, answer) =
            requestor.post(&format!("/gvpn/v1/activities/{activity}/networks"), body).await;
        assert_eq!(status, 200, "{answer}");
    }
    eventually("the second network carries packets", async || {
        requestor.sh(&one, "ping -c 1 -W 1 10.42.0.3").await.is_ok()
    })
    .await;

    // Removed: gone for everybody, at once and without a word from the payload.
    let node = format!("/net-api/v1/net/{net}/nodes/{}", b.id);
    assert_eq!(requestor.delete(&node).await, (200, Value::Null));
    eventually("the removed node has left", async || {
        !requestor.sh(&two, "ip addr").await.unwrap().contains("10.41.0.33")
    })
    .await;
    requestor.sh(&one, "ping -c 1 -W 1 10.41.0.33").await.unwrap_err();
    requestor.sh(&one, "ping -c 1 -W 5 10.42.0.3").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_deployments_say_why_and_change_nothing() {
    let rig = Rig::new().await;
    let (requestor, a) = (rig.requestor().await, rig.provider("a").await);
    let other = rig.daemon("other", &["--role", "requestor"]).await;
    let net = requestor.network("10.43.0.0/24").await;
    let taken = requestor.payload(&a, &net, "10.43.0.2").await;
    let foreign = other.network("10.44.0.0/24").await;
    other.add_node(&foreign, &a, "10.44.0.2").await;
    let progress = format!("/gvpn/v1/net/{foreign}/progress");
    eventually("the provider is in the other owner's network", async || {
        other.get(&progress).await.1[0]["current"] == true
    })
    .await;

    let activity = requestor.activity(&a).await;
    for (network, ip, word) in [
        (net.as_str(), "10.43.0.9", "was not given to provider"),
        (net.as_str(), "10.43.0.1", "was not given to provider"),
        (net.as_str(), "nonsense", "nonsense"),
        (&"0".repeat(32), "10.43.0.2", "was not added to network"),
        ("xyz", "10.43.0.2", "not a network id"),
        (&foreign, "10.44.0.2", "belongs to"),
        (&net, "10.43.0.2", "in use by activity"),
    ] {
        let results =
            requestor.exec(&activity, json!([deploy(network, ip), { "start": {} }])).await;
        let message = results[0]["message"].as_str().unwrap_or_default().to_owned();
        assert!(results.len() == 1 && message.contains(word), "{network} {ip}: {results:?}");
        assert_eq!(requestor.state(&activity).await, "Initialized");
    }
    requestor.add_node(&net, &a, "10.43.0.9").await;
    let script = json!([deploy(&net, "10.43.0.9"), { "start": {} }]);
    assert!(requestor.exec(&activity, script.clone()).await.iter().all(|r| r["result"] == "Ok"));
    let again = requestor.exec(&activity, script).await;
    assert!(again.len() == 1 && again[0]["result"] == "Error", "{again:?}");
    requestor.sh(&activity, "ping -c 1 -W 5 10.43.0.2").await.unwrap();
    requestor.sh(&taken, "ping -c 1 -W 5 10.43.0.9").await.unwrap();

    let path = format!("/activity-api/v1/activity/{activity}/exec");
    for text in ["nonsense", "[{\"fly\": {}}]", "{}"] {
        let body = json!({ "text": text });
        assert_eq!(requestor.post(&path, body).await.0, 400, "{text}");
    }
    // Golem's clients send scripts without commands: a batch that never has a result.
    let (status, batch) = requestor.post(&path, json!({ "text": "[]" })).await;
    assert_eq!(status, 200, "{batch}");
    let asked = std::time::Instant::now();
    let path = format!("{path}/{}?timeout=1", batch.as_str().unwrap());
    assert_eq!(requestor.get(&path).await, (200, json!([])));
    assert!(asked.elapsed() >= std::time::Duration::from_secs(1));
    // What is no image is told when it is to be deployed.
    std::fs::write(rig.images().join("no-image"), "nothing of the kind").unwrap();
    let ask = json!({ "provider": a.id, "image": "no-image" });
    let agreement = requestor.post("/gvpn/v1/agreements", ask).await.1;
    let ask = json!({ "agreementId": agreement["id"] });
    let activity = requestor.post("/activity-api/v1/activity", ask).await.1;
    let activity = activity["activityId"].as_str().unwrap();
    let results = requestor.exec(activity, json!([{ "deploy": {} }, { "start": {} }])).await;
    let message = results[0]["message"].as_str().unwrap_or_default();
    assert!(results.len() == 1 && message.contains("no-image"), "{results:?}");
    for image in ["/etc", "missing", "../busybox/../.."] {
        let ask = json!({ "provider": a.id, "image": image });
        let agreement = requestor.post("/gvpn/v1/agreements", ask).await.1;
        let ask = json!({ "agreementId": agreement["id"] });
        let (status, answer) = requestor.post("/activity-api/v1/activity", ask).await;
        assert_eq!(status, 400, "{image} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_requestor_comes_back_to_everything_it_had() {
    let rig = Rig::new().await;
    let (mut requestor, a, b) =
        (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = requestor.network("10.45.0.0/24").await;
    let one = requestor.payload(&a, &net, "10.45.0.2").await;
    requestor.payload(&b, &net, "10.45.0.3").await;
    let ping = json!([run("/bin/ping", &["-c", "40", "-i", "0.1", "10.45.0.3"])]);
    let (status, batch) = requestor.begin(&one, ping).await;
    assert_eq!(status, 200);
    let nodes = format!("/net-api/v1/net/{net}/nodes");
    let before = requestor.get(&nodes).await;
    requestor.kill();
    requestor.start().await;
    assert_eq!(requestor.get(&nodes).await, before);
    let results = requestor.finish(&one, batch.as_str().unwrap()).await;
    let output = results[0]["stdout"].as_str().unwrap();
    assert!(output.contains("40 packets received"), "{output}");
    assert_eq!(requestor.state(&one).await, "Ready");
    requestor.sh(&one, "true").await.unwrap();
    // It is still the owner: late members are reached.
    let late = requestor.payload(&b, &net, "10.45.0.4").await;
    requestor.sh(&one, "ping -c 1 -W 5 10.45.0.4").await.unwrap();
    let owner = async || requestor.sh(&late, "ping -c 1 -W 2 10.45.0.1").await.is_ok();
    eventually("the owner's address answers", owner).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_end_is_the_end_of_its_activities() {
    let rig = Rig::new().await;
    let requestor = rig.requestor().await;
    let (mut killed, mut restarted, mut stopped) =
        (rig.provider("a").await, rig.provider("b").await, rig.provider("c").await);
    let net = requestor.network("10.46.0.0/24").await;
    let gone = requestor.payload(&killed, &net, "10.46.0.2").await;
    let anew = requestor.payload(&restarted, &net, "10.46.0.3").await;
    let over = requestor.payload(&stopped, &net, "10.46.0.4").await;
    let (_, batch) = requestor.begin(&gone, json!([run("/bin/sleep", &["1000"])])).await;
    let payloads = [killed.descendants(), restarted.descendants(), stopped.descendants()].concat();
    killed.kill();
    restarted.kill();
    restarted.start().await;
    stopped.stop().await;
    for activity in [&over, &anew, &gone] {
        eventually("the requestor sees the end", async || {
            requestor.state(activity).await == "Terminated"
        })
        .await;
    }
    let results = requestor.finish(&gone, batch.as_str().unwrap()).await;
    assert_eq!(results[0]["result"], "Error", "{results:?}");
    assert_eq!(requestor.begin(&gone, json!([{ "terminate": {} }])).await.0, 410);
    eventually("nothing of them runs", async || alive(&payloads).is_empty()).await;
    let left = std::fs::read_dir(restarted.dir().join("activities")).unwrap().count();
    assert_eq!(left, 0);
    // The provider that was started anew takes new work, in the same network.
    let fresh = requestor.payload(&restarted, &net, "10.46.0.3").await;
    requestor.sh(&fresh, "true").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_stream_while_a_batch_runs() {
    let rig = Rig::new().await;
    let (requestor, a) = (rig.requestor().await, rig.provider("a").await);
    let net = requestor.network("10.47.0.0/24").await;
    let activity = requestor.payload(&a, &net, "10.47.0.2").await;
    let stream = json!({ "stream": {} });
    let script = json!([{ "run": { "entry_point": "/bin/sh", "args": ["-c",
        "for n in 1 2 3; do echo line $n; sleep 0.3; done; exit 3"],
        "capture": { "stdout": stream, "stderr": stream } } }]);
    let (_, batch) = requestor.begin(&activity, script).await;
    let batch = batch.as_str().unwrap();
    let response =
        requestor.stream(&format!("/activity-api/v1/activity/{activity}/exec/{batch}")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let (mut text, mut seen) = (String::new(), Vec::new());
    while !text.contains("\"finished\"") {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        seen.push(text.matches("line").count());
    }
    assert!(seen.contains(&2), "events came all at once: {text}");
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(text.starts_with("event: runtime\ndata: "));
    assert!(events[0]["kind"]["started"]["command"]["run"].is_object(), "{text}");
    assert!(events.iter().all(|event| event["batch_id"] == batch && event["index"] == 0));
    assert_eq!(events.last().unwrap()["kind"]["finished"]["return_code"], 3);
    let (status, usage) =
        requestor.get(&format!("/activity-api/v1/activity/{activity}/usage")).await;
    assert!(status == 200 && usage["currentUsage"][0].as_f64().unwrap() > 0.0, "{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_was_away_hears_of_ends_from_a_requestor_that_was_started_anew() {
    let rig = Rig::new().await;
    let (mut requestor, a, b) =
        (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = requestor.network("10.48.0.0/24").await;
    let one = requestor.payload(&a, &net, "10.48.0.2").await;
    let two = requestor.payload(&b, &net, "10.48.0.3").await;
    let agreements = requestor.get("/gvpn/v1/agreements").await.1;
    let of_b = agreements.as_array().unwrap().iter().find(|a| a["provider"] == b.id.as_str());
    let of_b = of_b.unwrap()["id"].as_str().unwrap().to_owned();
    let payloads = [a.descendants(), b.descendants()].concat();
    assert!(!alive(&payloads).is_empty());
    // Both providers stand still while the requestor ends an activity and an agreement.
    for provider in [&a, &b] {
        provider.pause();
    }
    let activity = format!("/activity-api/v1/activity/{one}");
    let agreement = format!("/gvpn/v1/agreements/{of_b}/terminate");
    let ends =
        async { tokio::join!(requestor.delete(&activity), requestor.post(&agreement, json!({}))) };
    // Whether it answers in time does not matter: it is killed in the middle of it.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), ends).await;
    requestor.kill();
    requestor.start().await;
    for provider in [&a, &b] {
        provider.resume();
    }
    eventually("no payload runs", async || alive(&payloads).is_empty()).await;
    for activity in [&one, &two] {
        eventually("the requestor sees the end", async || {
            requestor.state(activity).await == "Terminated"
        })
        .await;
    }
}
