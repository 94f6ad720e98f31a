//! Real namespaces, as root and as an ordinary user.

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use gvpn_vnic::{
    AgentCommand, IdRange, Interface, Namespace, NamespaceError, Route, TunDevice, TunSpec,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MTU: u16 = 1400;
const SUPER_PACKET: usize = 60_000;

async fn namespace() -> Namespace {
    let exe =
        std::env::var_os("GVPN_TEST_AGENT").unwrap_or(env!("CARGO_BIN_EXE_gvpn-ns-agent").into());
    let command = AgentCommand { exe: exe.into(), args: vec![], ..AgentCommand::default() };
    Namespace::spawn(command).await.unwrap()
}

fn interface(addresses: &[&str]) -> Interface {
    Interface {
        name: "eth0".into(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        routes: vec![],
        mtu: MTU,
    }
}

fn inside(namespace: &Namespace, program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args);
    namespace.enter(&mut command, false).unwrap();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Copies packets between two TUN devices until one is gone; the length of the longest.
fn forward(a: TunDevice, b: TunDevice) -> thread::JoinHandle<usize> {
    let (a, b) = (File::from(a.fd), File::from(b.fd));
    thread::spawn(move || {
        let mut longest = 0;
        let mut packet = vec![0; 70_000];
        loop {
            let ready = {
                let mut fds = [&a, &b].map(|f| PollFd::new(f.as_fd(), PollFlags::POLLIN));
                poll(&mut fds, PollTimeout::NONE).unwrap();
                fds.map(|f| f.revents().unwrap())
            };
            if ready.iter().any(|r| r.contains(PollFlags::POLLERR)) {
                return longest;
            }
            for (mut from, mut to, ready) in [(&a, &b, ready[0]), (&b, &a, ready[1])] {
                if ready.contains(PollFlags::POLLIN)
                    && let Ok(n) = from.read(&mut packet)
                {
                    longest = longest.max(n);
                    let _ = to.write(&packet[..n]);
                }
            }
        }
    })
}

async fn pair() -> (Namespace, Namespace, thread::JoinHandle<usize>) {
    let (a, b) = (namespace().await, namespace().await);
    let tun_a = a.create_tun(TunSpec::new("eth0", MTU)).await.unwrap();
    let tun_b = b.create_tun(TunSpec::new("eth0", MTU)).await.unwrap();
    assert!(tun_a.vnet_hdr && tun_b.vnet_hdr);
    a.configure(interface(&["10.9.0.1/24", "fd09::1/64"])).await.unwrap();
    b.configure(interface(&["10.9.0.2/24", "fd09::2/64"])).await.unwrap();
    (a, b, forward(tun_a, tun_b))
}

async fn transfer(a: &Namespace, b: &Namespace, to: SocketAddr, from: IpAddr) {
    let listener = b.tcp_listen(to).await.unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, peer) = listener.accept().await.unwrap();
        let mut bytes = vec![];
        stream.read_to_end(&mut bytes).await.unwrap();
        (bytes, peer.ip())
    });
    let sent: Vec<u8> = (0..8 << 20).map(|i: u32| (i ^ (i >> 8)) as u8).collect();
    let mut stream = a.tcp_connect(to, Some(from)).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    drop(stream);
    let (received, peer) = server.await.unwrap();
    assert!(received == sent);
    assert_eq!(peer, from);
}

async fn super_packets_cross() {
    let (a, b, forwarder) = pair().await;
    for family in [["10.9.0.2", "10.9.0.1"], ["fd09::2", "fd09::1"]] {
        let [to, from] = family.map(|ip| ip.parse().unwrap());
        transfer(&a, &b, SocketAddr::new(to, 8000), from).await;
    }
    a.remove_interface("eth0").await.unwrap();
    let longest = forwarder.join().unwrap();
    assert!(longest > 4 * usize::from(MTU) && longest <= SUPER_PACKET + 10, "{longest}");
}

async fn connect_errors_are_the_kernels() {
    let (a, _b, _forwarder) = pair().await;
    let refused = a.tcp_connect("10.9.0.2:1".parse().unwrap(), None).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let nowhere = a.tcp_connect("10.77.0.2:1".parse().unwrap(), None).await.unwrap_err();
    assert_eq!(nowhere.kind(), std::io::ErrorKind::NetworkUnreachable);
    let not_mine = a.tcp_connect("10.9.0.2:1".parse().unwrap(), Some([1, 2, 3, 4].into())).await;
    assert_eq!(not_mine.unwrap_err().kind(), std::io::ErrorKind::AddrNotAvailable);
}

async fn reconfiguration_is_exact() {
    let namespace = namespace().await;
    let _tun = namespace.create_tun(TunSpec::new("eth0", MTU)).await.unwrap();
    let seen = || {
        let text = inside(&namespace, "ip", &["-o", "addr", "show", "dev", "eth0"]);
        let addresses = text.lines().map(|l| l.split_whitespace().nth(3).unwrap().to_owned());
        addresses.collect::<Vec<_>>()
    };
    let steps: &[&[&str]] = &[
        &["10.9.0.2/24"],
        &["10.9.0.2/24", "10.9.0.3/24"],
        &["10.9.0.3/24", "10.9.0.2/24"],
        &["10.9.0.4/24"],
        &["10.9.0.5/24", "10.9.0.4/24", "10.8.0.1/16", "fd09::5/64", "fd09::6/64"],
        &["10.8.0.1/16", "10.9.0.4/24", "fd09::6/64"],
        &[],
        &["fd09::1/64"],
    ];
    for step in steps {
        namespace.configure(interface(step)).await.unwrap();
        let (mut seen, mut want) =
            (seen(), step.iter().map(ToString::to_string).collect::<Vec<_>>());
        let order_matters = want.iter().all(|a| a.starts_with("10.9."));
        if !order_matters {
            seen.sort();
            want.sort();
        }
        assert_eq!(seen, want);
    }
}

async fn routes_follow() {
    let namespace = namespace().await;
    let _tun = namespace.create_tun(TunSpec::new("eth0", MTU)).await.unwrap();
    let mut wanted = interface(&["10.9.0.2/24", "fd09::2/64"]);
    wanted.mtu = 1300;
    wanted.routes = vec![
        Route {
            via: Some([10, 9, 0, 1].into()),
            ..Route::on_link("10.50.0.0/16".parse().unwrap())
        },
        Route::on_link("224.0.0.0/4".parse().unwrap()),
        Route::on_link("255.255.255.255/32".parse().unwrap()),
        Route::on_link("fd50::/48".parse().unwrap()),
    ];
    namespace.configure(wanted.clone()).await.unwrap();
    namespace.configure(wanted.clone()).await.unwrap();
    let routes =
        |family: &str| inside(&namespace, "ip", &[family, "route", "show", "proto", "static"]);
    let (v4, v6) = (routes("-4"), routes("-6"));
    assert_eq!((v4.lines().count(), v6.lines().count()), (3, 1), "{v4}{v6}");
    assert!(v4.contains("10.50.0.0/16 via 10.9.0.1 dev eth0"), "{v4}");
    wanted.routes.truncate(1);
    wanted.routes[0].via = Some([10, 9, 0, 9].into());
    namespace.configure(wanted).await.unwrap();
    let (v4, v6) = (routes("-4"), routes("-6"));
    assert!(
        v4.trim().ends_with("via 10.9.0.9 dev eth0") || v4.contains("via 10.9.0.9 dev"),
        "{v4}"
    );
    assert_eq!((v4.lines().count(), v6.lines().count()), (1, 0), "{v4}{v6}");
    assert!(inside(&namespace, "ip", &["link", "show", "eth0"]).contains("mtu 1300"));
}

async fn refusals_say_what_and_why() {
    let namespace = namespace().await;
    let error = namespace.configure(interface(&["10.9.0.2/24"])).await.unwrap_err();
    assert!(matches!(error, NamespaceError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("eth0") && error.to_string().contains("No such device"));
    let _tun = namespace.create_tun(TunSpec::new("eth0", MTU)).await.unwrap();
    let error = namespace.create_tun(TunSpec::new("eth0", MTU)).await.unwrap_err();
    assert!(matches!(error, NamespaceError::Refused { .. }), "{error}");
    let error = namespace.create_tun(TunSpec::new("a-name-far-too-long", MTU)).await.unwrap_err();
    assert!(matches!(error, NamespaceError::Refused { .. }), "{error}");
}

async fn a_device_has_the_queues_that_were_wanted_and_no_other() {
    let namespace = namespace().await;
    let spec = TunSpec::new("eth0", MTU).with_queues(8);
    let tun = namespace.create_tun(spec.clone()).await.unwrap();
    assert_eq!((tun.queues.len(), tun.vnet_hdr), (7, true));
    let error = namespace.create_tun(spec).await.unwrap_err();
    assert!(matches!(error, NamespaceError::Refused { .. }), "{error}");
    namespace.configure(interface(&["10.9.0.1/24"])).await.unwrap();
    let disciplines = inside(&namespace, "tc", &["qdisc", "show", "dev", "eth0"]);
    assert_eq!(disciplines.lines().count(), 1, "{disciplines}");
    assert!(disciplines.starts_with("qdisc noqueue"), "{disciplines}");
    drop(tun);
    assert!(!inside(&namespace, "ip", &["-o", "link"]).contains("eth0"));
}

async fn dropping_ends_the_agent() {
    let namespace = namespace().await;
    let process = PathBuf::from(format!("/proc/{}", namespace.pid()));
    assert!(process.exists());
    drop(namespace);
    let deadline = Instant::now() + Duration::from_secs(30);
    while process.exists() {
        assert!(Instant::now() < deadline, "the agent lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn the_caller_keeps_its_identity_when_asked() {
    let namespace = namespace().await;
    assert_eq!(inside(&namespace, "id", &["-u"]).trim(), "0");
    let mut command = Command::new("id");
    namespace.enter(command.arg("-u"), true).unwrap();
    let own = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(own.trim(), nix::unistd::geteuid().to_string());
}

async fn everything() {
    super_packets_cross().await;
    connect_errors_are_the_kernels().await;
    reconfiguration_is_exact().await;
    routes_follow().await;
    refusals_say_what_and_why().await;
    a_device_has_the_queues_that_were_wanted_and_no_other().await;
    dropping_ends_the_agent().await;
    the_caller_keeps_its_identity_when_asked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_the_present_user() {
    everything().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_gives_its_payloads_ids_that_are_nobodys() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let exe = env!("CARGO_BIN_EXE_gvpn-ns-agent").into();
    let command = AgentCommand { exe, args: vec![], ids: IdRange::Full, ..AgentCommand::default() };
    let namespace = Namespace::spawn(command).await.unwrap();
    assert_eq!(namespace.ids(), 65_536);
    let map = inside(&namespace, "cat", &["/proc/self/uid_map"]);
    let fields: Vec<u32> = map.split_whitespace().map(|f| f.parse().unwrap()).collect();
    assert!(fields[0] == 0 && fields[1] > 65_535 && fields[2] == 65_536, "{map}");
    namespace.create_tun(TunSpec::new("eth0", MTU)).await.unwrap();
}

/// Runs the other tests again as a user without any privilege, with a TUN node of its own.
#[test]
fn as_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let tun = directory.path().join("tun");
    let made =
        Command::new("mknod").args(["-m", "666"]).arg(&tun).args(["c", "10", "200"]).status();
    assert!(made.unwrap().success());
    let copy = |from: &Path, name: &str| {
        let to = directory.path().join(name);
        std::fs::copy(from, &to).unwrap();
        to
    };
    let agent = copy(Path::new(env!("CARGO_BIN_EXE_gvpn-ns-agent")), "agent");
    let test = copy(&std::env::current_exe().unwrap(), "test");
    Command::new("chmod").arg("755").args([directory.path(), &agent, &test]).status().unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=61234", "--regid=61234", "--clear-groups"])
        .arg(test)
        .args(["--exact", "as_the_present_user", "--nocapture"])
        .env("GVPN_TEST_AGENT", agent)
        .env("GVPN_TUN", tun)
        .current_dir("/")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:#?}");
}
