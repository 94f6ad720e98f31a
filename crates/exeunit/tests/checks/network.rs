//! Networks.

use std::time::{Duration, Instant};

use gvpn_roster::{Limit, MemberEdit};

use super::{Subject, Verdict};

/// Members by their number: the owner is the first.
const PAYLOAD: usize = 0;

pub(super) async fn both_families(subject: &Subject) -> Verdict {
    for address in ["10.40.0.3", "fd40::3"] {
        subject.shell(&format!("busybox ping -c 2 -W 10 {address}")).await;
    }
    for address in ["10.40.0.2", "fd40::2"] {
        subject.neighbour.shell(&format!("ping -c 2 -W 10 {address}")).await;
    }
    None
}

pub(super) async fn tcp_both_ways(subject: &Subject) -> Verdict {
    for host in ["10.40.0.3", "[fd40::3]"] {
        let page = subject.shell(&format!("busybox wget -q -O - http://{host}/index.html")).await;
        assert_eq!(page, "near\n");
    }
    // More than windows and queues hold, and every byte of it.
    subject.neighbour.shell("seq 1 500000 > /var/www/many").await;
    let sum = "busybox wget -q -O - http://10.40.0.3/many | busybox md5sum";
    let there = subject.neighbour.shell("md5sum < /var/www/many").await;
    assert_eq!(subject.shell(sum).await, there);
    let serve = "busybox mkdir -p /tmp/gvpn-www; busybox seq 1 300000 > /tmp/gvpn-www/many; \
                 busybox httpd -p 8088 -h /tmp/gvpn-www";
    subject.shell(serve).await;
    let there = subject.shell("busybox md5sum < /tmp/gvpn-www/many").await;
    let sum = "wget -q -O - http://10.40.0.2:8088/many | md5sum";
    assert_eq!(subject.neighbour.shell(sum).await, there);
    None
}

pub(super) async fn several_networks(subject: &Subject) -> Verdict {
    subject.shell("busybox ping -c 1 -W 10 10.41.0.3").await;
    subject.neighbour.shell("ping -c 1 -W 10 10.41.0.2").await;
    let page = subject.shell("busybox wget -q -O - http://10.41.0.3/index.html").await;
    assert_eq!(page, "near\n");
    None
}

pub(super) async fn multicast(subject: &Subject) -> Verdict {
    let own = |addresses: &[ipnet::IpNet]| {
        let local = addresses.iter().find(|a| a.to_string().starts_with("fe80"));
        local.unwrap().addr().to_string()
    };
    let member = subject.board.member_named(subject.networks[0], "near");
    let near = own(&subject.board.config(subject.networks[0], member).addresses);
    // Every node is in this group; the payload hears itself too.
    let command = "busybox ping -c 3 -W 5 ff02::1%eth0";
    let heard = subject.shell(command).await;
    assert!(heard.contains(&near), "{near} is not in: {heard}");
    None
}

pub(super) async fn names(subject: &Subject) -> Verdict {
    // The gateway answers DNS in every network, whatever the payload's own files say.
    let zone = &subject.seen[PAYLOAD].search[0];
    let asked = format!("busybox nslookup near.{zone} 10.40.0.1");
    let answer = subject.shell(&asked).await;
    assert!(answer.contains("10.40.0.3"), "{answer}");
    if !subject.candidate.own_root {
        return Some("/etc/hosts is the program's affair; DNS was asked and answered");
    }
    subject.shell("busybox ping -c 1 -W 10 near").await;
    subject.shell(&format!("busybox ping -c 1 -W 10 near.{zone}")).await;
    assert_eq!(subject.shell("busybox hostname").await, "payload\n");
    None
}

pub(super) async fn live_addresses(subject: &Subject) -> Verdict {
    let seen = &subject.seen[PAYLOAD];
    let edit = MemberEdit {
        ips: Some(vec!["10.40.0.42".parse().unwrap(), "fd40::42".parse().unwrap()]),
        ..MemberEdit::default()
    };
    // A connection in the other network does not notice.
    subject.payload.unit.reconfigure(subject.board.edit(seen.network, seen.member, edit));
    subject.neighbour.shell_until("ping -c 1 -W 1 10.40.0.42").await;
    subject.neighbour.shell_until("ping -c 1 -W 1 fd40::42").await;
    subject.neighbour.shell_fails("ping -c 1 -W 1 10.40.0.2").await;
    subject.shell("busybox ping -c 1 -W 10 10.40.0.3").await;
    subject.shell("busybox ping -c 1 -W 10 10.41.0.3").await;
    None
}

pub(super) async fn live_names(subject: &Subject) -> Verdict {
    let [network, _] = subject.networks;
    let near = subject.board.member_named(network, "near");
    let named = |name: &str| MemberEdit { name: Some(Some(name.into())), ..MemberEdit::default() };
    let zone = &subject.seen[PAYLOAD].search[0];
    for (name, former) in [("afar", "near"), ("near", "afar")] {
        subject.board.edit(network, near, named(name));
        let own = subject.board.config(network, subject.seen[PAYLOAD].member);
        subject.payload.unit.reconfigure(own);
        let asked = |name| format!("busybox nslookup {name}.{zone} 10.40.0.1");
        let answer = subject.shell(&asked(name)).await;
        assert!(answer.contains("10.40.0.3"), "{answer}");
        subject.shell(&format!("! {}", asked(former))).await;
        if subject.candidate.own_root {
            subject.shell_until(&format!("busybox ping -c 1 -W 10 {name}")).await;
        }
    }
    None
}

pub(super) async fn live_joining_and_leaving(subject: &Subject) -> Verdict {
    let third = subject.board.network(&["10.42.0.0/24"]);
    let near = subject.board.member(third, "near", &["10.42.0.3"]);
    let own = subject.board.member(third, "payload", &["10.42.0.2"]);
    subject.neighbour.unit.reconfigure(near);
    subject.payload.unit.reconfigure(own);
    subject.shell_until("busybox ping -c 1 -W 1 10.42.0.3").await;
    subject.payload.unit.remove_network(subject.networks[1]);
    subject.shell_until("! busybox ip addr | busybox grep -q 10.41.0.2").await;
    subject.shell("busybox ping -c 1 -W 10 10.42.0.3").await;
    // And back again.
    subject.payload.unit.reconfigure(subject.seen[1].clone());
    subject.shell_until("busybox ping -c 1 -W 1 10.41.0.3").await;
    None
}

/// More networks than are usual, joined and left while the payload runs, the later ones like the first.
pub(super) async fn many_networks(subject: &Subject) -> Verdict {
    let mut last = None;
    for round in 0..2 {
        let networks: Vec<_> = (0..6)
            .map(|n| {
                let number = 50 + 10 * round + n;
                let prefixes = [format!("10.{number}.0.0/24"), format!("fd{number}::/64")];
                let network = subject.board.network(&[&prefixes[0], &prefixes[1]]);
                let member = |name, n: u32| {
                    let ips = [format!("10.{number}.0.{n}"), format!("fd{number}::{n}")];
                    subject.board.member(network, name, &[&ips[0], &ips[1]])
                };
                (number, member("near", 3), member("payload", 2))
            })
            .collect();
        for (_, near, own) in &networks {
            subject.neighbour.unit.reconfigure(near.clone());
            subject.payload.unit.reconfigure(own.clone());
        }
        for (number, ..) in &networks {
            subject.shell_until(&format!("busybox ping -c 1 -W 1 10.{number}.0.3")).await;
            subject.shell_until(&format!("busybox ping -c 1 -W 1 fd{number}::3")).await;
        }
        // Super-packets and all.
        let number = networks[5].0;
        let there = subject.neighbour.shell("md5sum < /var/www/many").await;
        let sum = format!("busybox wget -q -O - http://10.{number}.0.3/many | busybox md5sum");
        assert_eq!(subject.shell(&sum).await, there);
        for (number, near, own) in networks {
            subject.payload.unit.remove_network(own.network);
            subject.neighbour.unit.remove_network(near.network);
            last = Some(number);
        }
        let gone = format!("! busybox ip addr | busybox grep -q 10.{}.0.2", last.unwrap_or(0));
        subject.shell_until(&gone).await;
    }
    subject.shell("busybox ping -c 1 -W 10 10.40.0.3").await;
    None
}

pub(super) async fn rules(subject: &Subject) -> Verdict {
    let seen = &subject.seen[PAYLOAD];
    let quarantined = |it| MemberEdit { quarantined: Some(it), ..MemberEdit::default() };
    subject.board.edit(seen.network, seen.member, quarantined(true));
    subject.shell_until("! busybox ping -c 1 -W 1 10.40.0.3").await;
    subject.board.edit(seen.network, seen.member, quarantined(false));
    subject.shell_until("busybox ping -c 1 -W 1 10.40.0.3").await;
    None
}

/// What the payload sends is slowed down, and only as long as the owner wants it.
pub(super) async fn owners_limits(subject: &Subject) -> Verdict {
    let seen = &subject.seen[PAYLOAD];
    let limited = |bits_per_second| {
        let limit = Limit { bits_per_second, packets_per_second: 0 };
        subject.board.edit(
            seen.network,
            seen.member,
            MemberEdit { limit: Some(limit), ..MemberEdit::default() },
        )
    };
    let fetch = "wget -q -O - http://10.40.0.42:8088/many | md5sum";
    let there = subject.shell("busybox md5sum < /tmp/gvpn-www/many").await;
    // Two megabytes, at eight megabits a second.
    limited(8_000_000);
    let begin = Instant::now();
    assert_eq!(subject.neighbour.shell(fetch).await, there);
    assert!(begin.elapsed() > Duration::from_secs(1), "{:?}", begin.elapsed());
    limited(0);
    assert_eq!(subject.neighbour.shell(fetch).await, there);
    None
}
