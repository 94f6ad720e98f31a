//! Rules, quarantine and limits on running payloads.

mod rig;

use std::{
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
    sync::Mutex,
};

use gvpn_lab::figures;
use rig::{Daemon, Rig, WAIT, eventually};
use serde_json::{Value, json};

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
async fn rules_are_counted_on_all_nodes_together() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.75.0.0/24").await;
    let one = owner.payload(&a, &net, "10.75.0.2").await;
    let two = owner.payload(&b, &net, "10.75.0.3").await;
    let rules = format!("/gvpn/v1/net/{net}/rules");
    for rule in [
        json!({ "action": "deny", "from": { "member": 1 }, "protocol": "icmp" }),
        json!({ "action": "allow", "protocol": "icmp" }),
    ] {
        let (status, answer) = owner.post(&format!("{rules}?{WAIT}"), rule).await;
        assert_eq!(status, 200, "{answer}");
    }
    // Three are denied where they start; two pass, to be answered by what is denied.
    owner.sh(&one, "ping -c 3 -i 0.1 -W 1 10.75.0.3").await.unwrap_err();
    owner.sh(&two, "ping -c 2 -i 0.1 -W 1 10.75.0.2").await.unwrap_err();
    let counted = owner.get(&rules).await.1;
    assert_eq!((&counted[0]["hits"], &counted[1]["hits"]), (&json!(5), &json!(2)), "{counted}");
    assert_eq!(counted[0]["silent"], 0);
    // A node that does not answer is told of.
    b.pause();
    let mut counted = Value::Null;
    // A process that is told to stop may answer once more.
    eventually("the node that stands still is silent", async || {
        counted = owner.get(&rules).await.1;
        counted[0]["silent"] == 1
    })
    .await;
    b.resume();
    assert_eq!(counted[0]["hits"], 5, "{counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_slows_one_member_only_and_tcp_gets_all_of_it() {
    let rig = Rig::new().await;
    rig.install("/usr/bin/iperf3");
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.64.0.0/24").await;
    let slow = owner.payload(&a, &net, "10.64.0.2").await;
    let fast = owner.payload(&a, &net, "10.64.0.3").await;
    let sink = owner.payload(&b, &net, "10.64.0.4").await;
    for port in [5000, 5001] {
        owner.sh(&sink, &format!("iperf3 -s -p {port} >/dev/null 2>&1 &")).await.unwrap();
        owner.comes_true(&slow, &format!("iperf3 -c 10.64.0.4 -p {port} -n 1")).await;
    }
    let mut table = String::from("| limit | one TCP flow | four TCP flows |\n|---|---|---|\n");
    for rate in [1_000_000, 10_000_000, 100_000_000_u64] {
        let limit = json!({ "limit": { "bitsPerSecond": rate } });
        owner.set(&format!("{net}/members/10.64.0.2"), limit).await;
        let mut row = vec![format!("{} Mbit/s", rate / 1_000_000)];
        for flows in [1, 4] {
            let limited = received(&owner, &slow, 5000, flows).await;
            let share = limited / rate as f64;
            row.push(format!("{:.1} %", share * 100.0));
            let fits = if figures::wanted() { 0.9..1.0 } else { 0.5..1.2 };
            assert!(fits.contains(&share), "{rate} bit/s, {flows} flows: {share}");
        }
        writeln!(table, "| {} |", row.join(" | ")).unwrap();
    }
    println!("{table}");
    if figures::wanted() {
        figures::write("networks.md", "limits", &table).unwrap();
    }
    let (limited, free) =
        tokio::join!(received(&owner, &slow, 5000, 1), received(&owner, &fast, 5001, 1));
    assert!(free > limited, "{free} {limited}");
    assert!(limited > 10e6, "{limited}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_their_provider() {
    let mut table = String::from(
        "| the provider's bottleneck | one connection | eight connections | of the line |\n|---|---|---|---|\n",
    );
    // The first provider does not know its line: there is none on loopback, but the processor.
    for (uplink, workers) in [(0, 1), (20_000_000, 1), (20_000_000, 2)] {
        let rig = Rig::new().await;
        rig.install("/usr/bin/iperf3");
        let config = format!("[net]\nuplink = {uplink}\n");
        let threads = workers.to_string();
        let (owner, b) = (rig.requestor().await, rig.provider("b").await);
        let a = rig.provider_with("a", &config, &["--workers", &threads]).await;
        let net = owner.network("10.64.0.0/24").await;
        let modest = owner.payload(&a, &net, "10.64.0.2").await;
        let greedy = owner.payload(&a, &net, "10.64.0.3").await;
        let sink = owner.payload(&b, &net, "10.64.0.4").await;
        for port in [5000, 5001] {
            let server = format!("iperf3 -s -J -i 0.5 -p {port} >/dev/null 2>&1 &");
            owner.sh(&sink, &server).await.unwrap();
            owner.comes_true(&modest, &format!("iperf3 -c 10.64.0.4 -p {port} -n 1")).await;
        }
        if uplink == 0 {
            give_way(&a);
        }
        let (few, many) =
            tokio::join!(steady(&owner, &modest, 5000, 1), steady(&owner, &greedy, 5001, 8));
        let (share, used) = (few / (few + many), (few + many) / f64::from(uplink));
        let case = format!("uplink {uplink}, {workers} threads: {few} {many}");
        if uplink == 0 {
            // By flows it would be a ninth.
            assert!(few > many / 4.0, "{case}");
        } else {
            assert!((0.4..0.6).contains(&share), "{case}");
            let fits = if figures::wanted() { 0.8..1.0 } else { 0.3..1.1 };
            assert!(fits.contains(&used), "{case}");
        }
        let (name, used) = match uplink {
            0 => ("processor".to_owned(), "-".to_owned()),
            _ => {
                let line = format!("line of {} Mbit/s, {workers} threads", uplink / 1_000_000);
                (line, format!("{:.0} %", used * 100.0))
            }
        };
        let mbit = |bits: f64| format!("{:.1} Mbit/s", bits / 1e6);
        writeln!(table, "| {name} | {} | {} | {used} |", mbit(few), mbit(many)).unwrap();
    }
    println!("{table}");
    if figures::wanted() {
        figures::write("networks.md", "sharing", &table).unwrap();
    }
}

/// Has a daemon's threads wait for the processor more than payloads do: they are the bottleneck then,
/// whatever else the machine does.
fn give_way(daemon: &Daemon) {
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten() {
        let mut renice = Command::new("renice");
        renice.args(["-n", "10", "-p"]).arg(thread.file_name()).stdout(Stdio::null());
        assert!(renice.status().unwrap().success());
    }
}

/// What the sink gets in a few seconds, in bits a second.
async fn received(owner: &Daemon, from: &str, port: u16, flows: u32) -> f64 {
    let report = measured(owner, from, port, &format!("-P {flows}")).await;
    let received = report["end"]["sum_received"]["bits_per_second"].as_f64();
    received.unwrap_or_else(|| panic!("{report}"))
}

/// The median of what comes in each half of a second: how connections begin, and a moment in
/// which one of them was given no processor, say nothing of how a line is shared.
async fn steady(owner: &Daemon, from: &str, port: u16, flows: u32) -> f64 {
    let options = format!("-P {flows} --get-server-output");
    let report = measured(owner, from, port, &options).await;
    let intervals = report["server_output_json"]["intervals"].as_array();
    let intervals = intervals.unwrap_or_else(|| panic!("{report}"));
    let mut rates: Vec<f64> = intervals
        .iter()
        .filter_map(|interval| interval["sum"]["bits_per_second"].as_f64())
        .collect();
    assert!(rates.len() >= 6, "{report}");
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// What iperf3 reports of a few seconds. Its server may still be busy with the measurement before,
/// whose end waits in the queue too.
async fn measured(owner: &Daemon, from: &str, port: u16, options: &str) -> Value {
    let seconds = if figures::wanted() { 10 } else { 4 };
    let command = format!("iperf3 -c 10.64.0.4 -p {port} -t {seconds} -J {options}");
    let report = Mutex::new(Value::Null);
    eventually("the server measures", async || {
        let Ok(said) = owner.sh(from, &command).await else { return false };
        let Ok(answer) = serde_json::from_str::<Value>(&said) else { return false };
        let measured = answer["error"].is_null();
        *report.lock().unwrap() = answer;
        measured
    })
    .await;
    report.into_inner().unwrap()
}
