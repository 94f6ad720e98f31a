//! Whole activities: real processes in real namespaces.

mod rig;

use gvpn_model::{ActivityState, BatchEventKind, NetworkId, ResultKind};
use rig::{PATIENCE, Rig, assert_ok, deploy_and_start, network, run, user::run_as_ordinary_user};

#[tokio::test(flavor = "multi_thread")]
async fn two_payloads_talk() {
    let rig = Rig::new();
    let net = NetworkId::random();
    let (a, b) = tokio::join!(rig.ready(vec![network(net, 2)]), rig.ready(vec![network(net, 3)]));
    a.shell("ping -c 1 -W 5 10.20.0.3").await;
    b.shell("ping -c 1 -W 5 fd20::2").await;
    b.shell("ping -c 1 -W 5 peer2").await;
    a.shell("head -c 5000000 /dev/urandom > /var/www/file; httpd -h /var/www").await;
    let here = a.shell("md5sum < /var/www/file").await;
    let there = b.shell_until("wget -q -O - http://10.20.0.2/file | md5sum").await;
    assert_eq!(here, there);
    assert!(b.shell("cat /etc/resolv.conf").await.contains("nameserver 10.20.0.1"));
    a.shell_fails("ping -c 1 -W 1 192.0.2.1").await;
    a.unit.terminate().await;
    b.unit.terminate().await;
    assert!(!a.workdir.exists() && !b.workdir.exists());
}

#[test]
fn two_payloads_of_an_ordinary_user_talk() {
    run_as_ordinary_user("two_payloads_talk");
}

#[tokio::test(flavor = "multi_thread")]
async fn states_and_results_are_those_that_clients_expect() {
    let rig = Rig::new();
    let activity = rig.spawn(rig.config(&rig.busybox_image())).await;
    for early in [run("/bin/true", &[]), r#"[{"start": {}}]"#.to_owned()] {
        let results = activity.script(&early, vec![]).await;
        assert_eq!(results[0].result, ResultKind::Error);
        assert!(results[0].message.as_ref().unwrap().contains("Initialized"), "{results:?}");
    }
    let results = activity.script(&deploy_and_start(&[]), vec![]).await;
    assert_ok(&results);
    assert!(results[0].stdout.as_ref().unwrap().contains("startMode"));
    assert_eq!((results[0].is_batch_finished, results[1].is_batch_finished), (false, true));
    let again = activity.script(&deploy_and_start(&[]), vec![]).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].result, ResultKind::Error);

    let three = r#"[{"run": {"entry_point": "/bin/sh", "args": ["-c", "echo out; echo err >&2"],
            "capture": {"stdout": {"stream": {}}, "stderr": {"atEnd": {"format": "string"}}}}},
        {"run": {"entry_point": "/bin/sh", "args": ["-c", "exit 7"]}},
        {"run": {"entry_point": "/bin/true"}}]"#;
    let results = activity.script(three, vec![]).await;
    assert_eq!(results.len(), 2, "the rest of a script does not run after a failure");
    assert_eq!(results[0].stderr.as_deref(), Some("err\n"));
    assert_eq!((results[1].result, results[1].stdout.as_ref()), (ResultKind::Error, None));
    assert!(results[1].message.as_ref().unwrap().contains('7'));
    let missing = activity.script(&run("/bin/nothing-here", &[]), vec![]).await;
    assert!(missing[0].message.as_ref().unwrap().contains("No such file"), "{missing:?}");

    let ended = activity.script(r#"[{"sign": {}}, {"terminate": {}}]"#, vec![]).await;
    assert_ok(&ended);
    assert!(ended[0].stdout.as_ref().unwrap().starts_with("signed"));
    activity.gone().await;
    let seen = activity.seen.lock().unwrap();
    use ActivityState::{Deployed, Initialized, Ready, Terminated};
    let wanted = [
        (Initialized, Some(Deployed)),
        (Deployed, None),
        (Deployed, Some(Ready)),
        (Ready, None),
        (Ready, Some(Terminated)),
        (Terminated, None),
    ];
    assert_eq!(seen.states, wanted);
    let streamed = BatchEventKind::Stdout("out\n".into());
    assert!(seen.events.iter().any(|(index, kind)| *index == 0 && *kind == streamed));
    let code_7 =
        |kind: &BatchEventKind| matches!(kind, BatchEventKind::Finished { return_code: 7, .. });
    assert!(seen.events.iter().any(|(index, kind)| *index == 1 && code_7(kind)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_deploy_changes_nothing() {
    let rig = Rig::new();
    let net = network(NetworkId::random(), 2);
    let activity = rig.spawn(rig.config(&rig.busybox_image())).await;
    let wrong = [
        (deploy_and_start(&[network(NetworkId::random(), 2)]), "not added"),
        (deploy_and_start(&[network(net.network, 9)]), "not this activity's address"),
        (deploy_and_start(&[net.clone(), net.clone()]), "twice"),
        (r#"[{"deploy": {"hosts": {"a": "nonsense"}}}]"#.to_owned(), "nonsense"),
        (r#"[{"deploy": {"hostname": "a b"}}]"#.to_owned(), "host name"),
        (r#"[{"deploy": {"env": {"A=B": "1"}}}]"#.to_owned(), "environment"),
        (
            deploy_and_start(&[]).replace("[]", r#"[{"id": "xyz", "ip": "1", "nodeIp": "1"}]"#),
            "xyz",
        ),
    ];
    for (script, reason) in wrong {
        let results = activity.script(&script, vec![net.clone()]).await;
        let message = results[0].message.clone().unwrap_or_default();
        assert!(results.len() == 1 && message.contains(reason), "{script}: {results:?}");
        assert!(!rig.hub.is_attached(net.network, net.member));
    }
    let net = vec![net];
    assert_ok(&activity.script(&deploy_and_start(&net), net.clone()).await);
    activity.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_hostname_and_environment_come_from_deploy() {
    let rig = Rig::new();
    let activity = rig.spawn(rig.config(&rig.busybox_image())).await;
    let script = r#"[{"deploy": {"hosts": {"db.example": "10.1.2.3"}, "hostname": "web-1",
        "env": {"COLOUR": "blue"}}}, {"start": {}}]"#;
    assert_ok(&activity.script(script, vec![]).await);
    assert_eq!(
        activity.shell("hostname; cat /etc/hostname; echo $COLOUR").await,
        "web-1\nweb-1\nblue\n"
    );
    assert!(activity.shell("cat /etc/hosts").await.contains("10.1.2.3\tdb.example"));
    activity.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_change_while_the_payload_runs() {
    let rig = Rig::new();
    let (net, other) = (NetworkId::random(), NetworkId::random());
    let a = rig.ready(vec![network(net, 2)]).await;
    let b = rig.ready(vec![network(net, 3)]).await;
    b.shell("ping -c 1 -W 5 10.20.0.2").await;
    let mut moved = network(net, 2);
    moved.addresses = vec!["10.20.0.77/24".parse().unwrap()];
    moved.hosts = vec![("fresh".into(), "10.20.0.3".parse().unwrap())];
    moved.mtu = 1300;
    a.unit.reconfigure(moved);
    b.shell_until("ping -c 1 -W 1 10.20.0.77").await;
    b.shell_fails("ping -c 1 -W 1 10.20.0.2").await;
    a.shell_until("ping -c 1 -W 5 fresh").await;
    assert!(a.shell("ip addr show dev eth0").await.contains("mtu 1300"));
    // A second network, with the same prefix, joins and leaves live.
    a.unit.reconfigure(network(other, 2));
    a.shell_until("ip addr show dev eth1 | grep -q 10.20.0.2/24").await;
    assert!(rig.hub.is_attached(other, network(other, 2).member));
    a.unit.remove_network(net);
    a.shell_until("! ip addr show dev eth0").await;
    assert!(!rig.hub.is_attached(net, network(net, 2).member));
    a.unit.terminate().await;
    b.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_comes_while_the_program_runs_and_a_daemon_left_behind_holds_nothing_up() {
    let rig = Rig::new();
    let activity = rig.ready(vec![]).await;
    let script = r#"[{"run": {"entry_point": "/bin/sh",
        "args": ["-c", "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last"],
        "capture": {"stdout": {"stream": {}}}}}]"#;
    let running = activity.script(script, vec![]);
    let watching = async {
        let first = BatchEventKind::Stdout("first\n".into());
        while !activity.seen.lock().unwrap().events.iter().any(|(_, kind)| *kind == first) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        // The file is made from outside, through the payload's own layer.
        std::fs::write(activity.workdir.join("go"), "").unwrap();
    };
    let release = async {
        tokio::time::timeout(PATIENCE, watching).await.expect("output is streamed");
        activity.unit.poll_usage();
    };
    // The running script keeps the next one waiting, so release it by ending the loop's condition.
    let (_, ()) = tokio::join!(
        async {
            tokio::select! {
                results = running => drop(results),
                () = tokio::time::sleep(std::time::Duration::from_secs(2)) => {}
            }
        },
        release
    );
    activity.unit.terminate().await;

    let activity = rig.ready(vec![]).await;
    let before = std::time::Instant::now();
    assert_eq!(activity.shell("sleep 600 & echo started").await, "started\n");
    assert!(before.elapsed() < PATIENCE / 2);
    activity.unit.poll_usage();
    activity.shell("true").await;
    activity.unit.terminate().await;
    assert!(activity.seen.lock().unwrap().usage.is_some());
}
