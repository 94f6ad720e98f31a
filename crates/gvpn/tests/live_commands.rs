//! What a person types about a running network: it is changed, and looked into, by commands alone.

mod rig;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use gvpn_lab::Process;
use rig::{Daemon, Rig, eventually};

/// `gvpn` with these words, for this daemon.
fn command(owner: &Daemon, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gvpn"));
    command.arg("--data-dir").arg(owner.dir()).args(line.split(' ')).stdin(Stdio::null());
    for name in ["GVPN_API_URL", "GVPN_APPKEY", "YAGNA_API_URL", "YAGNA_APPKEY", "GVPN_DATA_DIR"] {
        command.env_remove(name);
    }
    command
}

async fn typed(owner: &Daemon, line: &str) -> Result<String, String> {
    let mut command = command(owner, line);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

/// What a command says, which must succeed and say `part`.
async fn says(owner: &Daemon, line: &str, part: &str) {
    let text = typed(owner, line).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(text.contains(part), "{line}: {part} is not in {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_happens() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.76.0.0/24").await;
    let one = owner.payload(&a, &net, "10.76.0.2").await;
    owner.payload(&b, &net, "10.76.0.3").await;

    let set = format!("net set {net} --name town --mtu 1300 --host printer.home=10.76.0.3");
    says(&owner, &set, "town").await;
    owner.comes_true(&one, "ip link show eth0 | grep -q 'mtu 1300'").await;
    owner.comes_true(&one, "ping -c 1 -W 1 printer.home").await;
    says(&owner, "member set town 10.76.0.3 --name db --add-ip 10.76.0.30", "10.76.0.30").await;
    owner.comes_true(&one, "ping -c 1 -W 1 db && ping -c 1 -W 1 10.76.0.30").await;
    says(&owner, "member set town db --rm-ip 10.76.0.30", "db").await;
    owner.comes_true(&one, "! ping -c 1 -W 1 10.76.0.30").await;
    says(&owner, "member ls town", "db").await;

    says(&owner, "net prefix add town", "fd").await;
    says(&owner, "net prefix add town 10.79.0.0/24 --gateway 10.79.0.254", "10.79.0.0/24").await;
    says(&owner, "net prefix gateway town 10.79.0.0/24 10.79.0.253", "10.79.0.0/24").await;
    owner.comes_true(&one, "grep -q 10.76.0.1 /etc/resolv.conf").await;
    says(&owner, "net prefix rm town 10.79.0.0/24", "town").await;
    let busy = typed(&owner, "net prefix rm town 10.76.0.0/24").await.unwrap_err();
    assert!(busy.contains("10.76.0.0/24"), "{busy}");
    says(&owner, "net set town --route 172.21.0.0/16=db", "town").await;
    owner.comes_true(&one, "ip route | grep -q 172.21.0.0/16").await;
    says(&owner, "net set town --no-routes", "town").await;
    owner.comes_true(&one, "! ip route | grep -q 172.21.0.0/16").await;

    says(&owner, "trace 10.76.0.2 db 81", "delivered to member 2").await;
    let rule = "rule add town deny --from member:1 --protocol tcp --port 81,90-99";
    says(&owner, rule, "added rule 1").await;
    let denied = "rule 1 denies it";
    eventually("the rule is in force", async || {
        typed(&owner, "trace 10.76.0.2 db 81").await.is_ok_and(|text| text.contains(denied))
    })
    .await;
    says(&owner, "trace 10.76.0.2 db 95", "dropped: denied").await;
    says(&owner, "trace 10.76.0.2 db 80", "path: direct").await;
    says(&owner, "rule ls town", "81").await;
    says(&owner, "rule rm town 1", "removed rule 1").await;
    eventually("the rule is gone", async || {
        typed(&owner, "trace 10.76.0.2 db 81").await.is_ok_and(|text| text.contains("delivered"))
    })
    .await;

    let add = format!("member add town {} --ip 10.76.0.44 --name spare", b.id);
    says(&owner, &add, "spare").await;
    says(&owner, "member set town spare --quarantine", "spare").await;
    eventually("the member is cut off", async || {
        let trace = typed(&owner, "trace 10.76.0.2 10.76.0.44 80").await;
        trace.is_ok_and(|text| text.contains("dropped: quarantined"))
    })
    .await;
    says(&owner, "member rm town spare", "removed").await;
    eventually("the member is gone", async || {
        let trace = typed(&owner, "trace 10.76.0.2 10.76.0.44 80").await;
        trace.is_ok_and(|text| text.contains("dropped: no_such_member"))
    })
    .await;
    eventually("all have followed", async || {
        let text = typed(&owner, "net show town").await.unwrap();
        text.contains("current") && !text.contains("behind")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_read_live_through_a_pipe() {
    let rig = Rig::new().await;
    let (owner, a, b) = (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = owner.network("10.78.0.0/24").await;
    let one = owner.payload(&a, &net, "10.78.0.2").await;
    owner.payload(&b, &net, "10.78.0.3").await;
    let mut capture = command(&owner, &format!("capture {net} icmp and host 10.78.0.3"));
    let mut capture = capture.stdout(Stdio::piped()).spawn().unwrap();
    let packets = capture.stdout.take().unwrap();
    let mut capture = Process::from(capture);
    let mut tshark = Command::new("tshark")
        .args(["-l", "-r", "-", "-T", "fields", "-e", "ip.src", "-e", "_ws.col.Info"])
        .stdin(packets)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tshark is installed (scripts/setup)");
    let lines = BufReader::new(tshark.stdout.take().unwrap()).lines();
    let mut tshark = Process::from(tshark);
    let (sender, seen) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut text = String::new();
    eventually("tshark shows an answer while the capture goes on", async || {
        owner.sh(&one, "ping -c 1 -W 2 10.78.0.3; ping -c 1 -W 2 10.78.0.1").await.ok();
        tokio::time::sleep(Duration::from_millis(100)).await;
        text.extend(seen.try_iter().map(|line| line + "\n"));
        text.contains("10.78.0.3\tEcho (ping) reply")
    })
    .await;
    assert!(!text.contains("10.78.0.1\t"), "the filter holds: {text}");
    assert!(capture.is_running() && tshark.is_running());
    // Who reads has seen enough: the capture ends too.
    drop(tshark);
    eventually("the capture ends", async || {
        owner.sh(&one, "ping -c 1 -W 2 10.78.0.3").await.ok();
        !capture.is_running()
    })
    .await;
}
