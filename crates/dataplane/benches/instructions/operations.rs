//! What is counted: each operation once a call, everything else made before.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
};

use gvpn_identity::Identity;
use gvpn_packet::{Checksum, Coalescer, Gso, Packet, Segments, Sum, VnetHdr, ipv4_header_checksum};
use gvpn_roster::{MemberSpec, NetworkSpec, OwnerBook};
use gvpn_session::{HEADER_LEN, LaneKeys, OVERHEAD, ReplayWindow, Suite};
use gvpn_switch::{MemberIx, Table};

/// Does the operation once.
pub(crate) type Operation = Box<dyn FnMut()>;

/// Its name, and what makes it.
pub(crate) type Case = (&'static str, fn() -> Operation);

pub(crate) const CASES: &[Case] = &[
    ("seal 1400 bytes, AES-256-GCM", || seal(Suite::Aes256Gcm)),
    ("open 1400 bytes, AES-256-GCM", || open(Suite::Aes256Gcm)),
    ("seal 1400 bytes, ChaCha20-Poly1305", || seal(Suite::ChaCha20Poly1305)),
    ("open 1400 bytes, ChaCha20-Poly1305", || open(Suite::ChaCha20Poly1305)),
    ("replay window", replay),
    ("checksum of 1400 bytes", checksum),
    ("segment headers of 44 TCP packets", segment),
    ("coalesce 44 TCP packets", coalesce),
    ("switch lookup, 10 members", || lookup(10)),
    ("switch lookup, 1000 members", || lookup(1000)),
    ("switch lookup, 10000 members", || lookup(10_000)),
];

/// Bytes that begin where a cache line does: how long copying takes depends on it.
#[repr(align(64))]
struct Aligned<const N: usize>([u8; N]);

fn keys(suite: Suite) -> (LaneKeys, LaneKeys) {
    let output = [7; 64];
    (LaneKeys::from_exporter(suite, &output, true), LaneKeys::from_exporter(suite, &output, false))
}

fn seal(suite: Suite) -> Operation {
    let sealer = keys(suite).0.sealer();
    let payload = Box::new(Aligned([2; 1348]));
    let mut text = Box::new(Aligned([1; 1400 + 16]));
    Box::new(move || {
        if let Some(counter) = sealer.reserve(1) {
            sealer.seal_scatter(counter, black_box(&mut text.0), 52, black_box(&payload.0));
        }
    })
}

fn open(suite: Suite) -> Operation {
    let (sealer, opener) = (keys(suite).0.sealer(), keys(suite).1.opener());
    let mut sealed = Box::new(Aligned([0; 1400 + OVERHEAD]));
    sealer.seal_in_place(0, &mut sealed.0);
    let mut datagram = Box::new(Aligned(sealed.0));
    Box::new(move || {
        datagram.0[HEADER_LEN..].copy_from_slice(&sealed.0[HEADER_LEN..]);
        assert!(opener.open_in_place(0, black_box(&mut datagram.0)).is_ok());
    })
}

fn replay() -> Operation {
    let (mut window, mut counter) = (ReplayWindow::default(), 0);
    Box::new(move || {
        assert!(window.accept(black_box(counter)).is_ok());
        counter += 1;
    })
}

fn checksum() -> Operation {
    let bytes = Box::new(Aligned([3; 1400]));
    Box::new(move || {
        black_box(Sum::default().bytes(black_box(&bytes.0)).checksum());
    })
}

/// Bytes of [`super_packet`].
const LEN: usize = 52 + 44 * 1348;

/// A network of so many members, and the first of them.
fn table(members: u32) -> Option<(Table, MemberIx)> {
    let owner = Identity::from_secret(&[1; 32])?;
    let node = owner.node_id();
    let spec = NetworkSpec::new("10.0.0.0/16".parse().ok()?);
    let mut book = OwnerBook::create(owner, [0; 16], spec).ok()?;
    let mut first = None;
    for index in 0..members {
        let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0100 + index));
        let member = book.add_member(MemberSpec::new(node, vec![address])).ok()?;
        first.get_or_insert(member);
    }
    let table = Table::build(book.roster(), node);
    let from = table.member_ix(first?)?;
    Some((table, from))
}

/// A TCP super-packet of 44 packets of 1400 bytes.
fn super_packet() -> (VnetHdr, Box<Aligned<LEN>>) {
    let mut packet = Box::new(Aligned([0; LEN]));
    let bytes = &mut packet.0;
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(LEN as u16).to_be_bytes());
    bytes[6..10].copy_from_slice(&[0x40, 0, 64, 6]);
    bytes[12..20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 3]);
    let sum = ipv4_header_checksum(&bytes[..20]).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes[32] = 8 << 4;
    bytes[33] = 0x10;
    (VnetHdr::needs_checksum(20, 16).with_gso(Gso::Tcp4, 1348, 52, false), packet)
}

fn segment() -> Operation {
    let (hdr, packet) = super_packet();
    let mut out = Box::new(Aligned([0; 52]));
    Box::new(move || {
        if let Ok(Some(segments)) = Segments::new(black_box(&hdr), black_box(&packet.0), 1440) {
            for index in 0..segments.count() {
                segments.write_header(index, &mut out.0);
                black_box(&mut out.0);
            }
        }
    })
}

fn coalesce() -> Operation {
    let (hdr, packet) = super_packet();
    let mut whole = Box::new(Aligned([0; 44 * 1400]));
    if let Ok(Some(segments)) = Segments::new(&hdr, &packet.0, 1440) {
        for (index, place) in whole.0.chunks_mut(1400).enumerate() {
            segments.write_packet(index, place);
        }
    }
    let mut buffer = Box::new(Aligned(whole.0));
    let mut coalescer = Coalescer::default();
    Box::new(move || {
        let buffer = &mut buffer.0;
        coalescer.clear();
        buffer[..60].copy_from_slice(&whole.0[..60]);
        for at in (0..buffer.len()).step_by(1400) {
            if let Some(outline) = Packet::parse(&buffer[at..at + 1400]) {
                coalescer.push(&buffer[..], at, outline, Checksum::Partial, true);
            }
        }
        assert_eq!(coalescer.runs().len(), 1);
        black_box(coalescer.finish(0, buffer));
    })
}

fn lookup(members: u32) -> Operation {
    let (table, from) = table(members).expect("the members' addresses are in the network");
    let (_, mut packet) = super_packet();
    packet.0[12..16].copy_from_slice(&[10, 0, 1, 0]);
    packet.0[16..20].copy_from_slice(&(0x0a00_0100 + members - 1).to_be_bytes());
    Box::new(move || {
        black_box(table.from_port(black_box(from), black_box(&packet.0)));
    })
}
