//! The lab on this machine: real namespaces, nothing left behind.

use std::time::{Duration, Instant};

use gvpn_lab::{Lab, LabError, Nat};

fn lab() -> Option<Lab> {
    match Lab::new() {
        Ok(lab) => Some(lab),
        Err(e @ LabError::Forbidden(_)) => {
            eprintln!("not run: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn hosts_of_a_lan_reach_each_other_in_both_families() {
    let Some(lab) = lab() else { return };
    let lan = lab.lan().unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    assert_eq!(a.join(&lan, &["10.9.0.1/24", "fd09::1/64"]).unwrap(), "eth0");
    b.join(&lan, &["10.9.0.2/24", "fd09::2/64"]).unwrap();
    a.run("ping", ["-c1", "-W5", "10.9.0.2"]).unwrap();
    a.run("ping", ["-c1", "-W5", "fd09::2"]).unwrap();
    let error = a.run("ping", ["-c1", "-W1", "10.9.0.3"]).unwrap_err();
    assert!(error.to_string().contains("on a: `ping -c1 -W1 10.9.0.3`"), "{error}");
}

#[test]
fn a_nat_lets_out_and_not_in() {
    let Some(lab) = lab() else { return };
    let wan = lab.lan().unwrap();
    let server = lab.host("server").unwrap();
    server.join(&wan, &["203.0.113.9/24"]).unwrap();
    for kind in [Nat::PortRestricted, Nat::Symmetric, Nat::UdpBlocked] {
        let home = lab.nat(kind, &wan, "203.0.113.2/24", "192.168.7.1/24").unwrap();
        let inner = lab.host("inner").unwrap();
        inner.join(&home.lan, &["192.168.7.2/24"]).unwrap();
        inner.default_route("192.168.7.1").unwrap();
        inner.run("ping", ["-c1", "-W5", "203.0.113.9"]).unwrap();
        assert!(server.run("ping", ["-c1", "-W1", "192.168.7.2"]).is_err(), "{kind:?}");
        assert_eq!(home.outside(), "203.0.113.2");
    }
}

#[test]
fn processes_and_namespaces_end_with_the_lab() {
    let Some(lab) = lab() else { return };
    let host = lab.host("a").unwrap();
    let holder = host.pid();
    let process = host.command("sleep").arg("1000").spawn().unwrap();
    let pid = process.pid();
    let inside = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(inside, std::fs::read_link("/proc/self/ns/net").unwrap());
    drop((process, host, lab));
    let start = Instant::now();
    while [pid, holder].iter().any(|p| std::path::Path::new(&format!("/proc/{p}")).exists()) {
        assert!(start.elapsed() < Duration::from_secs(10), "left behind");
        std::thread::sleep(Duration::from_millis(20));
    }
}
