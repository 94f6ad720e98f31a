//! Cutting and joining, against each other and against a model.

use gvpn_packet::{
    Checksum, Coalescer, Gso, Packet, Placed, Segments, Transport, VnetHdr, clamp_mss,
    ipv4_header_checksum, transport_checksum, transport_is_valid,
};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
}

const KINDS: [Kind; 4] = [Kind::Tcp4, Kind::Tcp6, Kind::Udp4, Kind::Udp6];

fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

/// A whole packet with right checksums: 12 bytes of TCP options, given flags and identification.
fn packet(kind: Kind, sequence: u32, id: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let v4 = matches!(kind, Kind::Tcp4 | Kind::Udp4);
    let tcp = matches!(kind, Kind::Tcp4 | Kind::Tcp6);
    let at = if v4 { 20 } else { 40 };
    let headers = at + if tcp { 32 } else { 8 };
    let mut bytes = vec![0; headers];
    bytes.extend_from_slice(payload);
    let len = bytes.len();
    if v4 {
        bytes[..2].copy_from_slice(&[0x45, 2]);
        put(&mut bytes, 2, len as u16);
        put(&mut bytes, 4, id);
        bytes[6] = 0x40;
        bytes[8] = 64;
        bytes[9] = if tcp { 6 } else { 17 };
        bytes[12..20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 3]);
        let sum = ipv4_header_checksum(&bytes[..20]);
        put(&mut bytes, 10, sum);
    } else {
        bytes[0] = 0x60;
        put(&mut bytes, 4, (len - 40) as u16);
        bytes[6] = if tcp { 6 } else { 17 };
        bytes[7] = 64;
        bytes[8] = 0xfd;
        bytes[23] = 2;
        bytes[24] = 0xfd;
        bytes[39] = 3;
    }
    put(&mut bytes, at, 40_000);
    put(&mut bytes, at + 2, 443);
    if tcp {
        bytes[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
        bytes[at + 12] = 8 << 4;
        bytes[at + 13] = flags;
        put(&mut bytes, at + 14, 501);
        bytes[at + 20..at + 24].copy_from_slice(&[1, 1, 8, 10]);
    } else {
        put(&mut bytes, at + 4, (len - at) as u16);
    }
    let outline = Packet::parse(&bytes).unwrap();
    let sum = transport_checksum(&bytes, &outline).unwrap();
    let field = at + outline.transport.checksum_offset().unwrap();
    put(&mut bytes, field, sum);
    assert!(transport_is_valid(&bytes, &outline));
    bytes
}

fn hdr(kind: Kind, size: usize, headers: usize, ecn: bool) -> VnetHdr {
    let (gso, at, offset) = match kind {
        Kind::Tcp4 => (Gso::Tcp4, 20, 16),
        Kind::Tcp6 => (Gso::Tcp6, 40, 16),
        Kind::Udp4 => (Gso::Udp, 20, 6),
        Kind::Udp6 => (Gso::Udp, 40, 6),
    };
    VnetHdr::needs_checksum(at, offset).with_gso(gso, size as u16, headers as u16, ecn)
}

fn cut(hdr: &VnetHdr, bytes: &[u8], max_len: usize) -> Vec<Vec<u8>> {
    let segments = Segments::new(hdr, bytes, max_len).unwrap().unwrap();
    (0..segments.count())
        .map(|index| {
            let mut out = vec![0; 70_000];
            let len = segments.write_packet(index, &mut out);
            out.truncate(len);
            out
        })
        .collect()
}

/// Joins packets and gives back each run as (header, bytes).
fn join(packets: &[Vec<u8>], checksum: Checksum) -> Vec<(VnetHdr, Vec<u8>)> {
    let mut coalescer = Coalescer::default();
    let mut buffer = Vec::new();
    let mut places = Vec::new();
    for packet in packets {
        places.push(buffer.len());
        buffer.extend_from_slice(packet);
    }
    for (packet, at) in packets.iter().zip(places) {
        let outline = Packet::parse(packet).unwrap();
        coalescer.push(&buffer, at, outline, checksum, true);
    }
    (0..coalescer.runs().len())
        .map(|index| {
            let hdr = coalescer.finish(index, &mut buffer);
            let run = coalescer.runs()[index];
            let mut bytes = buffer[run.at()..run.at() + run.header_len()].to_vec();
            for (at, len) in coalescer.pieces(index) {
                bytes.extend_from_slice(&buffer[at..at + len]);
            }
            assert_eq!(bytes.len(), run.len());
            (hdr, bytes)
        })
        .collect()
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

const FIN_PSH_ACK: u8 = 0x19;
const CWR: u8 = 0x80;

#[test]
fn segments_follow_the_rules() {
    for kind in KINDS {
        let tcp = matches!(kind, Kind::Tcp4 | Kind::Tcp6);
        let whole = packet(kind, u32::MAX - 1000, 0xfffe, FIN_PSH_ACK | CWR, &payload(3500));
        let headers = whole.len() - 3500;
        let packets = cut(&hdr(kind, 1000, headers, true), &whole, usize::MAX);
        assert_eq!(packets.len(), 4);
        for (index, bytes) in packets.iter().enumerate() {
            let outline = Packet::parse(bytes).unwrap();
            let last = index == 3;
            assert_eq!(outline.len, bytes.len());
            assert_eq!(bytes.len(), headers + if last { 500 } else { 1000 });
            assert!(transport_is_valid(bytes, &outline), "{kind:?} {index}");
            assert_eq!(bytes[headers..], payload(3500)[index * 1000..][..bytes.len() - headers]);
            if bytes[0] == 0x45 {
                assert_eq!(
                    ipv4_header_checksum(&bytes[..20]),
                    u16::from_be_bytes([bytes[10], bytes[11]])
                );
                assert_eq!(
                    u16::from_be_bytes([bytes[4], bytes[5]]),
                    0xfffe_u16.wrapping_add(index as u16)
                );
            }
            if tcp {
                let flags = bytes[outline.transport_at + 13];
                assert_eq!(flags & 0x09 == 0x09, last, "FIN and PSH on the last only");
                assert_eq!(flags & 0x09 != 0, last, "FIN and PSH on the last only");
                assert_eq!(flags & CWR != 0, index == 0, "CWR on the first only");
                let at = outline.transport_at + 4;
                let sequence = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                assert_eq!(sequence, (u32::MAX - 1000).wrapping_add(index as u32 * 1000));
            }
        }
        if !tcp {
            continue;
        }
        let finer = cut(&hdr(kind, 1000, headers, true), &whole, headers + 300);
        assert_eq!(finer.len(), 12);
        assert_eq!(finer[11].len(), headers + 200);
    }
}

#[test]
fn what_does_not_fit_its_kind_is_refused() {
    let whole = packet(Kind::Tcp4, 0, 0, 0x10, &payload(3000));
    for (kind, size, max_len) in [
        (Kind::Tcp6, 1000, 9000),
        (Kind::Udp4, 1000, 9000),
        (Kind::Tcp4, 0, 9000),
        (Kind::Tcp4, 10, 52),
    ] {
        assert!(Segments::new(&hdr(kind, size, 52, false), &whole, max_len).is_err(), "{kind:?}");
    }
    assert!(Segments::new(&hdr(Kind::Tcp4, 1000, 52, false), &whole[..2999], 9000).is_err());
    assert!(
        Segments::new(&VnetHdr { gso_type: 3, ..hdr(Kind::Udp4, 1, 28, false) }, &whole, 9000)
            .is_err()
    );
    assert!(Segments::new(&VnetHdr::default(), &whole, 9000).unwrap().is_none());
}

#[test]
fn a_plain_tcp_packet_is_cut_unless_a_flag_forbids() {
    let whole = packet(Kind::Tcp4, 77, 1, 0x18, &payload(1400));
    let outline = Packet::parse(&whole).unwrap();
    let segments = Segments::of_tcp(&whole, outline, 1000).unwrap();
    assert_eq!((segments.count(), segments.packet_len()), (2, 1000));
    for flags in [0x02, 0x04, 0x30] {
        let whole = packet(Kind::Tcp4, 77, 1, flags, &payload(1400));
        assert!(Segments::of_tcp(&whole, outline, 1000).is_err());
    }
}

#[test]
fn joining_undoes_cutting() {
    for kind in KINDS {
        for (len, flags) in [(3500, 0x18), (3000, 0x10), (2001, 0x11)] {
            let whole = packet(kind, u32::MAX - 900, 65_535, flags, &payload(len));
            let headers = whole.len() - len;
            let hdr = hdr(kind, 1000, headers, false);
            for checksum in [Checksum::Full, Checksum::Partial] {
                let runs = join(&cut(&hdr, &whole, usize::MAX), checksum);
                assert_eq!(runs.len(), 1, "{kind:?}");
                let (got, bytes) = &runs[0];
                assert_eq!(*got, hdr);
                let outline = Packet::parse(bytes).unwrap();
                let field = outline.transport_at + outline.transport.checksum_offset().unwrap();
                let mut same = bytes.clone();
                same[field..field + 2].copy_from_slice(&whole[field..field + 2]);
                assert_eq!(same, whole, "{kind:?} {len}");
                assert_eq!(cut(got, bytes, usize::MAX), cut(&hdr, &whole, usize::MAX));
            }
        }
    }
}

#[test]
fn packets_that_do_not_continue_a_flow_stay_apart() {
    let base = |sequence, id, flags| packet(Kind::Tcp4, sequence, id, flags, &payload(1000));
    let changed = |at: usize, value: u8| {
        let mut bytes = base(1000, 1, 0x10);
        bytes[at] = value;
        let sum = ipv4_header_checksum(&bytes[..20]);
        put(&mut bytes, 10, sum);
        let outline = Packet::parse(&bytes).unwrap();
        let sum = transport_checksum(&bytes, &outline).unwrap();
        put(&mut bytes, 36, sum);
        bytes
    };
    let head = base(0, 0, 0x10);
    let mut corrupt = base(1000, 1, 0x10);
    corrupt[900] ^= 1;
    let cases = [
        (head.clone(), base(1001, 1, 0x10), "a gap"),
        (head.clone(), base(999, 1, 0x10), "an overlap"),
        (head.clone(), base(1000, 2, 0x10), "an identification that skips"),
        (head.clone(), base(1000, 1, 0x10 | CWR), "CWR in the middle"),
        (base(0, 0, 0x10 | CWR), base(1000, 1, 0x10 | CWR), "CWR twice"),
        (head.clone(), base(1000, 1, 0x30), "URG"),
        (head.clone(), base(1000, 1, 0x14), "RST"),
        (base(0, 0, 0x18), base(1000, 1, 0x10), "after PSH"),
        (head.clone(), packet(Kind::Tcp4, 1000, 1, 0x10, &payload(1001)), "a longer one"),
        (head.clone(), packet(Kind::Tcp4, 1000, 1, 0x10, &[]), "a bare acknowledgement"),
        (head.clone(), changed(1, 3), "another type of service"),
        (head.clone(), changed(8, 63), "another time to live"),
        (head.clone(), changed(6, 0), "another DF"),
        (head.clone(), changed(31, 1), "another acknowledgement"),
        (head.clone(), changed(35, 1), "another window"),
        (head.clone(), changed(47, 1), "other options"),
        (head.clone(), corrupt, "a wrong checksum"),
        (packet(Kind::Tcp4, 0, 0, 0x10, &payload(900)), base(900, 1, 0x10), "after a shorter one"),
    ];
    for (first, second, why) in cases {
        let runs = join(&[first.clone(), second.clone()], Checksum::Full);
        assert_eq!(runs.len(), 2, "{why}");
        assert_eq!((&runs[0].1, &runs[1].1), (&first, &second), "{why}");
        assert_eq!((runs[0].0, runs[1].0), (VnetHdr::default(), VnetHdr::default()), "{why}");
        // Checksums that are open are not looked at; what else keeps packets apart still does.
        if why != "a wrong checksum" {
            assert_eq!(join(&[first, second], Checksum::Partial).len(), 2, "{why}, open checksums");
        }
    }
    for checksum in [Checksum::Full, Checksum::Partial] {
        let runs = join(&[head.clone(), base(1000, 1, 0x10)], checksum);
        assert_eq!(runs.len(), 1);
    }
}

#[test]
fn a_constant_identification_is_joined_and_never_mixed() {
    let base = |sequence, id| packet(Kind::Tcp4, sequence, id, 0x10, &payload(100));
    for checksum in [Checksum::Full, Checksum::Partial] {
        let runs = |ids: [u16; 3]| {
            join(&[base(0, ids[0]), base(100, ids[1]), base(200, ids[2])], checksum).len()
        };
        assert_eq!(runs([7, 8, 9]), 1);
        assert_eq!(runs([7, 7, 7]), 1);
        assert_eq!(runs([7, 7, 9]), 2);
        assert_eq!(runs([7, 8, 7]), 2);
        assert_eq!(runs([7, 8, 8]), 2);
    }
}

proptest! {
    /// Whatever is pushed comes out once, and each flow in its order.
    #[test]
    fn nothing_is_lost_and_flows_keep_their_order(
        steps in prop::collection::vec((0usize..4, 0u16..12, 1usize..5, any::<bool>()), 1..80)
    ) {
        let mut next: std::collections::BTreeMap<(usize, u16), (u32, u16)> = Default::default();
        let mut packets = Vec::new();
        for (kind, port, len, push) in steps {
            let state = next.entry((kind, port)).or_default();
            let flags = if push { 0x18 } else { 0x10 };
            let body = vec![packets.len() as u8; len * 100];
            let mut bytes = packet(KINDS[kind], state.0, state.1, flags, &body);
            let outline = Packet::parse(&bytes).unwrap();
            put(&mut bytes, outline.transport_at, port);
            let sum = transport_checksum(&bytes, &outline).unwrap();
            let field = outline.transport_at + outline.transport.checksum_offset().unwrap();
            put(&mut bytes, field, sum);
            *state = (state.0.wrapping_add(body.len() as u32), state.1.wrapping_add(1));
            packets.push(bytes);
        }
        let mut out = Vec::new();
        for (hdr, bytes) in join(&packets, Checksum::Full) {
            match hdr.gso().unwrap() {
                None => out.push(bytes),
                Some(_) => out.extend(cut(&hdr, &bytes, usize::MAX)),
            }
        }
        prop_assert_eq!(out.len(), packets.len());
        let flow = |bytes: &Vec<u8>| {
            let outline = Packet::parse(bytes).unwrap();
            let at = outline.transport_at;
            (bytes[0], outline.transport == Transport::Tcp, bytes[at], bytes[at + 1])
        };
        let mut want: std::collections::BTreeMap<_, Vec<_>> = Default::default();
        let mut got: std::collections::BTreeMap<_, Vec<_>> = Default::default();
        packets.iter().for_each(|p| want.entry(flow(p)).or_default().push(p.clone()));
        out.iter().for_each(|p| got.entry(flow(p)).or_default().push(p.clone()));
        prop_assert_eq!(got, want);
    }

    #[test]
    fn no_input_makes_cutting_or_joining_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        raw in any::<[u8; 10]>(),
        kind in 0usize..4,
        max_len in 0usize..400,
    ) {
        let sample = packet(KINDS[kind], 1, 1, 0x18, &[]);
        for (i, byte) in sample.iter().enumerate().take(bytes.len()) {
            if i % 3 != 0 { bytes[i] = *byte; }
        }
        let mut hdr = VnetHdr::read(&raw);
        hdr.gso_type = [1, 4, 5, 5][kind];
        if let Ok(Some(segments)) = Segments::new(&hdr, &bytes, max_len) {
            let mut out = vec![0; 70_000];
            for index in 0..segments.count().min(100) {
                segments.write_packet(index, &mut out);
            }
        }
        if let Some(outline) = Packet::parse(&bytes) {
            let mut coalescer = Coalescer::default();
            let placed = coalescer.push(&bytes, 0, outline, Checksum::Full, true);
            prop_assert_eq!(placed, Placed::New(0));
            coalescer.push(&bytes, 0, outline, Checksum::Partial, true);
            for run in 0..coalescer.runs().len() {
                coalescer.finish(run, &mut bytes);
            }
            clamp_mss(&mut bytes, &outline, max_len, false);
            let _ = gvpn_packet::too_big(&bytes, max_len);
        }
    }

    /// Clamping keeps a right checksum right, wherever the option lies.
    #[test]
    fn clamped_syns_stay_valid(nops in 0usize..8, mss in 1u16..9000, max_len in 100usize..9000) {
        let mut bytes = packet(Kind::Tcp4, 9, 9, 0x02, &payload(4));
        bytes[40..52].fill(1);
        bytes[40 + nops..44 + nops].copy_from_slice(&[2, 4, (mss >> 8) as u8, mss as u8]);
        let outline = Packet::parse(&bytes).unwrap();
        let sum = transport_checksum(&bytes, &outline).unwrap();
        put(&mut bytes, 36, sum);
        let changed = clamp_mss(&mut bytes, &outline, max_len, false);
        let got = u16::from_be_bytes([bytes[42 + nops], bytes[43 + nops]]);
        prop_assert_eq!(usize::from(got), usize::from(mss).min(max_len - 40));
        prop_assert_eq!(changed, got != mss);
        prop_assert!(transport_is_valid(&bytes, &outline));
    }
}
