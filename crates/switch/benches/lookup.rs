//! What the switch costs a super-packet, in instructions: counted by valgrind, so that the figures are
//! the same on every machine. `cargo bench -p gvpn-switch` writes them into `docs/networks.md`.

use std::{env, fmt::Write as _, hint::black_box, net::IpAddr, process::Command};

use gvpn_identity::Identity;
use gvpn_lab::figures;
use gvpn_model::{MemberId, NodeId};
use gvpn_roster::{
    Action, NetworkSpec, OwnerBook, Policy, PortRange, Protocol, Rule, Selector, SettingsEdit,
};
use gvpn_switch::{MemberIx, NodeIx, Table};

/// Names the case that this process runs under valgrind.
const CASE: &str = "GVPN_LOOKUP_CASE";
/// Packets per case.
const PACKETS: usize = 4096;
const SIZES: [u32; 3] = [10, 1_000, 10_000];
const OPERATIONS: [(&str, &str); 6] = [
    ("port4", "payload to peer, IPv4"),
    ("port6", "payload to peer, IPv6"),
    ("peer4", "peer to payload, IPv4"),
    ("peer6", "peer to payload, IPv6"),
    ("acl1", "payload to peer, 1 rule"),
    ("acl20", "payload to peer, 20 rules"),
];

fn main() {
    if let Ok(case) = env::var(CASE) {
        let (operation, members) = case.split_once(' ').expect("operation and members");
        return run(operation, members.parse().expect("a number"));
    }
    if env::args().any(|arg| arg == "--test") {
        return;
    }
    let mut table = String::from("| instructions a packet |");
    SIZES.iter().for_each(|n| write!(table, " {n} members |").expect("a string"));
    table.push_str("\n|---|---|---|---|\n");
    for (operation, text) in OPERATIONS {
        write!(table, "| {text} |").expect("a string");
        for members in SIZES {
            let cost = count(operation, members) / PACKETS as u64;
            println!("{operation} {members}: {cost}");
            write!(table, " {cost} |").expect("a string");
        }
        table.push('\n');
    }
    figures::write("networks.md", "switch-lookup", &table).expect("docs/networks.md");
}

/// Instructions of the measured part of a case.
fn count(operation: &str, members: u32) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*measured_part*")
        .arg(env::current_exe().expect("this program"))
        .env(CASE, format!("{operation} {members}"))
        .output()
        .expect("valgrind is installed (scripts/setup)");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("Collected"));
    let number = line.and_then(|line| line.rsplit(' ').next()?.replace(',', "").parse().ok());
    number.unwrap_or_else(|| panic!("valgrind counted nothing:\n{text}"))
}

fn run(operation: &str, members: u32) {
    let (table, packets) = prepare(operation, members);
    let peer = operation.starts_with("peer");
    let start = black_box(0);
    let verdicts = measured_part(&table, &packets, peer, start);
    assert_eq!(verdicts, packets.len(), "every packet is delivered");
}

#[inline(never)]
fn measured_part(
    table: &Table,
    packets: &[(u32, Vec<u8>)],
    peer: bool,
    mut delivered: usize,
) -> usize {
    for (from, packet) in packets {
        let verdict = if peer {
            table.from_peer(NodeIx(*from), packet)
        } else {
            table.from_port(MemberIx(*from), packet)
        };
        let pass = table.admit(packet, &verdict, 1400, 1, 0);
        delivered += usize::from(pass && matches!(verdict, gvpn_switch::Verdict::Deliver(_)));
    }
    delivered
}

/// A network with half of its members here, and packets between random pairs of members.
fn prepare(operation: &str, members: u32) -> (Table, Vec<(u32, Vec<u8>)>) {
    let spec = NetworkSpec {
        name: None,
        subnets: vec![
            ("10.0.0.0/16".parse().expect("a prefix"), None),
            ("fd00::/64".parse().expect("a prefix"), None),
        ],
        mtu: None,
    };
    let mut book = OwnerBook::create(Identity::generate(), [1; 16], spec).expect("a network");
    let here = NodeId::from_bytes([1; 20]);
    for n in 1..members {
        let mut id = [2; 20];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let node = if n % 2 == 0 { here } else { NodeId::from_bytes(id) };
        let ips = vec![v4(n), v6(n)];
        book.add_member(gvpn_roster::MemberSpec::new(node, ips)).expect("a member");
    }
    if let Some(rules) = operation.strip_prefix("acl") {
        let rules = (1..=rules.parse().expect("a number")).map(rule).collect();
        let policy = Policy { rules, ..Policy::default() };
        let edit = SettingsEdit { policy: Some(policy), ..Default::default() };
        book.edit_settings(edit).expect("a policy");
    }
    let table = Table::build(book.roster(), here);
    let mut seed = 1u32;
    let mut random = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    let six = operation.ends_with('6');
    let packets = (0..PACKETS).map(|_| {
        let local = 2 * (1 + random((members - 1) / 2));
        let remote = 1 + 2 * random((members - 1) / 2);
        let address = |n: u32| if six { v6(n) } else { v4(n) };
        if operation.starts_with("peer") {
            let row = table.member_ix(MemberId(remote)).expect("a member");
            let node = table.members()[row.0 as usize].node_ix;
            (node.0, packet(address(remote), address(local)))
        } else {
            let row = table.member_ix(MemberId(local)).expect("a member");
            (row.0, packet(address(local), address(remote)))
        }
    });
    let packets = packets.collect();
    (table, packets)
}

/// A rule that does not match the packets.
fn rule(id: u32) -> Rule {
    Rule {
        id,
        action: Action::Deny,
        from: Selector::Any,
        to: Selector::Member(MemberId(0)),
        protocol: Protocol::Tcp,
        ports: vec![PortRange { first: 22, last: 22 }],
    }
}

fn v4(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0002 + n + n / 250).to_be_bytes())
}

fn v6(n: u32) -> IpAddr {
    IpAddr::from((0xfd00_u128 << 112 | u128::from(n + 2)).to_be_bytes())
}

/// A TCP segment.
fn packet(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut packet = match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            [&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0][..], &a.octets(), &b.octets()].concat()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &a.octets(), &b.octets()].concat()
        }
        _ => Vec::new(),
    };
    packet.extend([0x30, 0x39, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    packet
}
