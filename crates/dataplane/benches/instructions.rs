//! Instructions that the hot path takes, counted by callgrind and compared with a committed
//! baseline: unlike times they are the same on a busy machine.
//!
//! `cargo bench -p gvpn-dataplane --bench instructions` compares; with `-- --update` it writes the
//! baseline and the table in `docs/performance.md` anew. Valgrind knows no AVX-512, so the ciphers are counted as they run on AVX2.

use std::{
    collections::BTreeMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    process::{Command, ExitCode},
};

use gvpn_identity::Identity;
use gvpn_packet::{Checksum, Coalescer, Gso, Packet, Segments, Sum, VnetHdr, ipv4_header_checksum};
use gvpn_roster::{MemberSpec, NetworkSpec, OwnerBook};
use gvpn_session::{HEADER_LEN, LaneKeys, OVERHEAD, ReplayWindow, Suite};
use gvpn_switch::Table;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");

/// How far a count may be from the baseline, in percent.
const TOLERANCE: f64 = 3.0;

const FEW: u64 = 20;
const MANY: u64 = 120;

/// A look-up is done so often where others are done once: making its table takes millions of
/// instructions, and not each time as many.
const LOOKUPS: u64 = 5000;

type Case = (&'static str, fn(u64));

const CASES: &[Case] = &[
    ("seal 1400 bytes, AES-256-GCM", |n| seal(Suite::Aes256Gcm, n)),
    ("open 1400 bytes, AES-256-GCM", |n| open(Suite::Aes256Gcm, n)),
    ("seal 1400 bytes, ChaCha20-Poly1305", |n| seal(Suite::ChaCha20Poly1305, n)),
    ("open 1400 bytes, ChaCha20-Poly1305", |n| open(Suite::ChaCha20Poly1305, n)),
    ("replay window", replay),
    ("checksum of 1400 bytes", checksum),
    ("segment headers of 44 TCP packets", segment),
    ("coalesce 44 TCP packets", coalesce),
    ("switch lookup, 10 members", |n| lookup(10, n)),
    ("switch lookup, 1000 members", |n| lookup(1000, n)),
    ("switch lookup, 10000 members", |n| lookup(10_000, n)),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, case, times] = &args[..]
        && flag == "--child"
    {
        let (case, times) = (case.parse::<usize>(), times.parse());
        if let (Ok(case), Ok(times)) = (case, times) {
            CASES[case].1(times);
        }
        return ExitCode::SUCCESS;
    }
    if !args.iter().any(|arg| arg == "--bench") {
        println!("instruction counts: nothing to do but under `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match compare(args.iter().any(|arg| arg == "--update")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instruction counts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(update: bool) -> Result<bool, String> {
    let mut counts = BTreeMap::new();
    for (index, (name, _)) in CASES.iter().enumerate() {
        let times = if name.starts_with("switch") { LOOKUPS } else { 1 } * (MANY - FEW);
        let each = (count(index, MANY)? - count(index, FEW)?) as f64 / times as f64;
        counts.insert((*name).to_owned(), each.round() as u64);
    }
    if update {
        let text = serde_json::to_string_pretty(&counts).map_err(|e| e.to_string())?;
        std::fs::write(BASELINE, text + "\n").map_err(|e| format!("writing {BASELINE}: {e}"))?;
        let rows = CASES.iter().map(|(name, _)| format!("| {name} | {} |\n", counts[*name]));
        let table =
            format!("| operation | instructions |\n|---|---|\n{}", rows.collect::<String>());
        gvpn_lab::figures::write("performance.md", "instructions", &table)
            .map_err(|e| format!("writing docs/performance.md: {e}"))?;
    }
    let text = std::fs::read_to_string(BASELINE).map_err(|e| format!("reading {BASELINE}: {e}"))?;
    let baseline: BTreeMap<String, u64> =
        serde_json::from_str(&text).map_err(|e| format!("reading {BASELINE}: {e}"))?;
    let mut passed = 0;
    for (name, count) in &counts {
        let before = baseline.get(name).copied().unwrap_or(0);
        let change = (*count as f64 / before.max(1) as f64 - 1.0) * 100.0;
        let ok = change <= TOLERANCE;
        passed += usize::from(ok);
        let verdict = if ok { "ok" } else { "MORE THAN THE BASELINE" };
        println!("{name:40} {count:>9} {change:>+7.1} %  {verdict}");
    }
    let failed = counts.len() - passed;
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// Instructions of a whole run of this program.
fn count(case: usize, times: u64) -> Result<u64, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(me)
        .args(["--child", &case.to_string(), &times.to_string()])
        .output()
        .map_err(|e| format!("valgrind does not start ({e}): install Debian's valgrind"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.split_once("Collected : "));
    let count = line.and_then(|(_, number)| number.trim().parse().ok());
    count.ok_or_else(|| format!("valgrind counted nothing: {said}"))
}

fn keys(suite: Suite) -> (LaneKeys, LaneKeys) {
    let output = [7; 64];
    (LaneKeys::from_exporter(suite, &output, true), LaneKeys::from_exporter(suite, &output, false))
}

fn seal(suite: Suite, times: u64) {
    let sealer = keys(suite).0.sealer();
    let (payload, mut text) = ([2; 1348], [1; 1400 + 16]);
    for _ in 0..times {
        if let Some(counter) = sealer.reserve(1) {
            sealer.seal_scatter(counter, black_box(&mut text), 52, black_box(&payload));
        }
    }
    black_box(text);
}

fn open(suite: Suite, times: u64) {
    let (sealer, opener) = (keys(suite).0.sealer(), keys(suite).1.opener());
    let mut sealed = vec![0; 1400 + OVERHEAD];
    sealer.seal_in_place(0, &mut sealed);
    let mut datagram = sealed.clone();
    for _ in 0..times {
        datagram[HEADER_LEN..].copy_from_slice(&sealed[HEADER_LEN..]);
        assert!(opener.open_in_place(0, black_box(&mut datagram)).is_ok());
    }
}

fn replay(times: u64) {
    let mut window = ReplayWindow::default();
    for counter in 0..times {
        assert!(window.accept(black_box(counter)).is_ok());
    }
}

fn checksum(times: u64) {
    let bytes = [3; 1400];
    for _ in 0..times {
        black_box(Sum::default().bytes(black_box(&bytes)).checksum());
    }
}

/// A TCP super-packet of 44 packets of 1400 bytes.
fn super_packet() -> (VnetHdr, Vec<u8>) {
    let len = 52 + 44 * 1348;
    let mut bytes = vec![0; len];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    bytes[6..10].copy_from_slice(&[0x40, 0, 64, 6]);
    bytes[12..20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 3]);
    let sum = ipv4_header_checksum(&bytes[..20]).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes[32] = 8 << 4;
    bytes[33] = 0x10;
    (VnetHdr::needs_checksum(20, 16).with_gso(Gso::Tcp4, 1348, 52, false), bytes)
}

fn segment(times: u64) {
    let (hdr, bytes) = super_packet();
    let mut out = [0; 52];
    for _ in 0..times {
        if let Ok(Some(segments)) = Segments::new(black_box(&hdr), black_box(&bytes), 1440) {
            for index in 0..segments.count() {
                segments.write_header(index, &mut out);
                black_box(&mut out);
            }
        }
    }
}

fn coalesce(times: u64) {
    let (hdr, bytes) = super_packet();
    let mut buffer = Vec::new();
    if let Ok(Some(segments)) = Segments::new(&hdr, &bytes, 1440) {
        for index in 0..segments.count() {
            let mut packet = vec![0; 1400];
            segments.write_packet(index, &mut packet);
            buffer.extend(packet);
        }
    }
    let whole = buffer.clone();
    let mut coalescer = Coalescer::default();
    for _ in 0..times {
        coalescer.clear();
        buffer[..60].copy_from_slice(&whole[..60]);
        for at in (0..buffer.len()).step_by(1400) {
            if let Some(outline) = Packet::parse(&buffer[at..at + 1400]) {
                coalescer.push(&buffer, at, outline, Checksum::Partial, true);
            }
        }
        assert_eq!(coalescer.runs().len(), 1);
        black_box(coalescer.finish(0, &mut buffer));
    }
}

fn lookup(members: u32, times: u64) {
    let owner = Identity::from_secret(&[1; 32]).expect("a small number is a secret key");
    let node = owner.node_id();
    let Ok(prefix) = "10.0.0.0/16".parse() else { return };
    let Ok(mut book) = OwnerBook::create(owner, [0; 16], NetworkSpec::new(prefix)) else { return };
    let address = |index: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0100 + index));
    let mut first = None;
    for index in 0..members {
        let spec = MemberSpec::new(node, vec![address(index)]);
        first = first.or(book.add_member(spec).ok());
    }
    let table = Table::build(book.roster(), node);
    let Some(from) = first.and_then(|id| table.member_ix(id)) else { return };
    let (_, mut packet) = super_packet();
    packet[12..16].copy_from_slice(&[10, 0, 1, 0]);
    packet[16..20].copy_from_slice(&(0x0a00_0100 + members - 1).to_be_bytes());
    for _ in 0..times * LOOKUPS {
        black_box(table.from_port(black_box(from), black_box(&packet)));
    }
}
