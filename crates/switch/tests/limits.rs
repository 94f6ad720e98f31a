//! Limits in virtual time: what a sender gets through the node that delays it, and through one that
//! only drops.

mod world;

use std::collections::VecDeque;

use gvpn_roster::{Limit, MemberEdit};
use gvpn_switch::{
    Table,
    shaper::{Popped, Shaper},
};
use world::*;

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const MSS: u64 = 1340;
const PACKET: u64 = 1400;

fn limited(member: u32, limit: Limit, at: u8) -> Table {
    let mut world = World::new();
    world.edit(member, MemberEdit { limit: Some(limit), ..Default::default() });
    world.table(node(at))
}

fn bits(bits_per_second: u64) -> Limit {
    Limit { bits_per_second, packets_per_second: 0 }
}

/// A TCP sender, roughly: a window that grows by a segment a round trip and shrinks by a third at a
/// loss, cut into super-packets of a millisecond's worth of it.
struct Tcp {
    rtt: u64,
    window: f64,
    slow_start: bool,
    in_flight: u64,
    /// Whether it understands marks.
    ecn: bool,
    /// Whether it asks for marks and does not heed them.
    deaf: bool,
    /// A window that it keeps whatever it hears, as BBR does.
    fixed: Option<f64>,
    /// What it will hear: when, about how many segments.
    news: VecDeque<(u64, u64, News)>,
    losses: u64,
    recovering_until: u64,
    delivered: u64,
}

impl Tcp {
    fn new(rtt: u64) -> Self {
        Self {
            rtt,
            window: 10.0,
            slow_start: true,
            in_flight: 0,
            ecn: false,
            deaf: false,
            fixed: None,
            losses: 0,
            news: VecDeque::new(),
            recovering_until: 0,
            delivered: 0,
        }
    }

    fn hear(&mut self, now: u64) {
        while self.news.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, segments, news) = self.news.pop_front().unwrap();
            self.in_flight -= segments;
            match news {
                News::Lost => self.losses += segments,
                News::Arrived | News::Marked => self.delivered += segments,
            }
            if news == News::Arrived || (news == News::Marked && self.deaf) {
                let gain = if self.slow_start { 1.0 } else { 1.0 / self.window };
                self.window += segments as f64 * gain;
            } else if now >= self.recovering_until {
                self.window = (self.window * 0.7).max(2.0);
                self.slow_start = false;
                self.recovering_until = now + self.rtt;
            }
            self.window = self.fixed.unwrap_or(self.window);
        }
    }

    /// The segments of the next super-packet, if the window lets one go.
    fn next(&self) -> Option<u64> {
        let free = (self.window as u64).saturating_sub(self.in_flight);
        let burst = (self.window as u64 / 10).clamp(2, 44);
        (free >= burst.min(self.window as u64)).then(|| free.min(burst).max(1))
    }
}

/// What becomes of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Arrived,
    Marked,
    Lost,
}

/// What a run comes to.
struct Outcome {
    /// Of the limit, as payload.
    share: f64,
    /// The longest that a packet waited after the first second.
    longest_wait: u64,
    /// The same, of the last ten seconds.
    last_wait: u64,
}

/// Runs TCP senders of one member through its node for `seconds`.
fn shaped(table: &Table, rate: u64, flows: &mut [Tcp], seconds: u64) -> Outcome {
    let pacing = table.pacing(ix(table, 1)).unwrap();
    let mut shaper: Shaper<(usize, u64, u64)> = Shaper::new(pacing.room());
    let mut out = vec![0; 65_535];
    let (mut longest_wait, mut last_wait) = (0, 0);
    let mut packet = vec![0; 65_535];
    packet[0] = 0x45;
    // A thread that wakes up a millisecond late, again and again.
    for now in (0..seconds * SECOND).step_by(MS as usize) {
        while let Some((len, since)) = shaper.first()
            && pacing.ready_at(len, since) <= now
        {
            let popped = shaper.pop(now - pacing.takes(len), &mut out);
            let (sent, (flow, segments, since), len, news) = match popped {
                Popped::Packet(packet, len) => (true, packet, len, News::Arrived),
                Popped::Mark(packet, len) => (true, packet, len, News::Marked),
                Popped::Dropped(packet, len) => (false, packet, len, News::Lost),
                Popped::Empty => break,
            };
            let flow: &mut Tcp = &mut flows[flow];
            flow.news.push_back((now + flow.rtt, segments, news));
            if !sent {
                continue;
            }
            pacing.charge(len as u64, segments, since, now);
            if now > SECOND {
                longest_wait = longest_wait.max(now - since);
            }
            if now + 10 * SECOND > seconds * SECOND {
                last_wait = last_wait.max(now - since);
            }
        }
        for (at, flow) in flows.iter_mut().enumerate() {
            flow.hear(now);
            while let Some(segments) = flow.next() {
                flow.in_flight += segments;
                let len = (segments * PACKET) as usize;
                packet[1] = if flow.ecn { 2 } else { 0 };
                if !shaper.push((at, segments, now), &packet[..len], now) {
                    flow.news.push_back((now + flow.rtt, segments, News::Lost));
                }
            }
        }
    }
    let delivered: u64 = flows.iter().map(|flow| flow.delivered).sum();
    let most = rate as f64 * seconds as f64 / 8.0;
    Outcome { share: (delivered * MSS) as f64 / most, longest_wait, last_wait }
}

#[test]
fn tcp_gets_its_limit_and_packets_do_not_wait_long() {
    for rate in [1_000_000, 4_000_000, 50_000_000, 1_000_000_000] {
        for rtt in [1, 20, 100] {
            if rate * rtt > 50_000_000_000 {
                // A sender that gains a segment a round trip does not get so far in time.
                continue;
            }
            for count in [1, 8] {
                let table = limited(1, bits(rate), 1);
                let mut flows: Vec<_> = (0..count).map(|_| Tcp::new(rtt * MS)).collect();
                let outcome = shaped(&table, rate, &mut flows, 20);
                let case = format!("{rate} bit/s, {rtt} ms, {count} flows");
                assert!(outcome.share > 0.9, "{case}: {}", outcome.share);
                assert!(outcome.share <= 1.01, "{case}: {}", outcome.share);
                let waited = outcome.longest_wait / MS;
                // A slow link is slow: some packets of every flow take their time.
                let fair = 120 + count * 8 * PACKET * 8 * 1000 / rate;
                assert!(waited < fair, "{case}: {waited} ms");
            }
        }
    }
}

#[test]
fn a_sender_that_understands_marks_loses_nothing() {
    for rate in [4_000_000, 50_000_000] {
        for count in [1, 8] {
            let table = limited(1, bits(rate), 1);
            let mut flows: Vec<_> = (0..count).map(|_| Tcp::new(20 * MS)).collect();
            flows.iter_mut().for_each(|flow| flow.ecn = true);
            // The start, until the first mark, may fill the queue.
            shaped(&table, rate, &mut flows, 5);
            let before: u64 = flows.iter().map(|flow| flow.losses).sum();
            for flow in &mut flows {
                (flow.delivered, flow.news, flow.in_flight) = (0, VecDeque::new(), 0);
                flow.recovering_until = 0;
            }
            let table = limited(1, bits(rate), 1);
            let outcome = shaped(&table, rate, &mut flows, 20);
            let case = format!("{rate} bit/s, {count} flows");
            assert!(outcome.share > 0.9, "{case}: {}", outcome.share);
            assert_eq!(flows.iter().map(|flow| flow.losses).sum::<u64>(), before, "{case}");
        }
    }
}

#[test]
fn a_slow_limit_loses_nothing_of_who_understands_marks_from_the_first_packet_on() {
    for rtt in [1, 20] {
        for count in [1, 4] {
            let table = limited(1, bits(1_000_000), 1);
            let mut flows: Vec<_> = (0..count).map(|_| Tcp::new(rtt * MS)).collect();
            flows.iter_mut().for_each(|flow| flow.ecn = true);
            let outcome = shaped(&table, 1_000_000, &mut flows, 5);
            let case = format!("{rtt} ms, {count} flows");
            assert!(outcome.share > 0.9, "{case}: {}", outcome.share);
            assert_eq!(flows.iter().map(|flow| flow.losses).sum::<u64>(), 0, "{case}");
        }
    }
}

#[test]
fn a_few_packets_in_flight_whatever_is_marked_are_not_lost() {
    let table = limited(1, bits(1_000_000), 1);
    let mut flows: Vec<_> = (0..4).map(|_| Tcp::new(MS)).collect();
    for flow in &mut flows {
        (flow.ecn, flow.fixed, flow.window) = (true, Some(4.0), 4.0);
    }
    let outcome = shaped(&table, 1_000_000, &mut flows, 20);
    assert!(outcome.share > 0.9, "{}", outcome.share);
    assert_eq!(flows.iter().map(|flow| flow.losses).sum::<u64>(), 0);
}

#[test]
fn what_cannot_be_marked_is_spared_among_packets_that_can() {
    let run = |every: u64| {
        let table = limited(1, bits(1_000_000), 1);
        let pacing = table.pacing(ix(&table, 1)).unwrap();
        let mut shaper = Shaper::new(pacing.room());
        let (mut packet, mut out) = ([0; PACKET as usize], [0; PACKET as usize]);
        packet[0] = 0x45;
        let (mut count, mut lost) = (0, [0, 0]);
        for now in (SECOND..20 * SECOND).step_by(MS as usize) {
            // Somewhat more than the limit, whatever is marked; each so many cannot be.
            if now % (10 * MS) == 0 {
                packet[1] = u8::from(count % every != 0);
                count += 1;
                shaper.push(packet[1], &packet, now);
            }
            while let Some((len, since)) = shaper.first()
                && pacing.ready_at(len, since) <= now
            {
                match shaper.pop(now - pacing.takes(len), &mut out) {
                    Popped::Dropped(kind, _) => lost[usize::from(kind)] += 1,
                    _ => pacing.charge(PACKET, 1, since, now),
                }
            }
        }
        lost
    };
    let [plain, marked] = run(9);
    assert!(plain == 0 && marked > 20, "{plain} {marked}");
    // Nobody understands marks: some are lost, as many as must be.
    let [plain, _] = run(1);
    assert!((150..400).contains(&plain), "{plain}");
}

#[test]
fn packets_of_a_sender_that_does_not_heed_marks_do_not_wait_long_either() {
    for rate in [1_000_000, 50_000_000] {
        let table = limited(1, bits(rate), 1);
        let mut flows: Vec<_> = (0..4).map(|_| Tcp::new(20 * MS)).collect();
        flows.iter_mut().for_each(|flow| (flow.ecn, flow.deaf) = (true, true));
        let outcome = shaped(&table, rate, &mut flows, 30);
        assert!(outcome.share > 0.9, "{rate} bit/s: {}", outcome.share);
        let waited = outcome.last_wait / MS;
        assert!(waited < 350, "{rate} bit/s: {waited} ms");
    }
}

#[test]
fn a_flood_is_cut_to_the_limit_and_the_queue_is_bounded() {
    let table = limited(1, bits(8_000_000), 1);
    let pacing = table.pacing(ix(&table, 1)).unwrap();
    let mut shaper = Shaper::new(pacing.room());
    let (packet, mut out) = ([0; 1000], [0; 1000]);
    let (mut passed, mut most) = (0, 0);
    for now in (0..10 * SECOND).step_by(MS as usize) {
        // Ten times the limit.
        (0..10).for_each(|_| {
            shaper.push((), &packet, now);
        });
        most = most.max(shaper.bytes());
        while let Some((len, since)) = shaper.first()
            && pacing.ready_at(len, since) <= now
        {
            match shaper.pop(now - pacing.takes(len), &mut out) {
                Popped::Packet((), len) => {
                    pacing.charge(len as u64, 1, since, now);
                    passed += len;
                }
                Popped::Mark(..) | Popped::Dropped(..) => {}
                Popped::Empty => break,
            }
        }
    }
    assert!((9_900_000..10_100_000).contains(&passed), "1 MB/s for 10 s: {passed}");
    assert!(most <= pacing.room());
}

#[test]
fn packets_come_out_as_they_went_in() {
    let mut shaper = Shaper::new(10_000);
    let mut out = [0; 2000];
    for round in 0..50u8 {
        for n in 0..5u8 {
            assert!(shaper.push(n, &vec![round ^ n; 1000 + usize::from(n)], 0));
        }
        for n in 0..5u8 {
            assert_eq!(shaper.pop(0, &mut out), Popped::Packet(n, 1000 + usize::from(n)));
            assert!(out[..1000].iter().all(|byte| *byte == round ^ n));
        }
        assert_eq!(shaper.pop(0, &mut out), Popped::Empty);
    }
    assert!(shaper.push(0, &[0; 65_000], 0), "there is room for one in any case");
    assert!(!shaper.push(0, &[0; 1], 0));
}

#[test]
fn packets_are_as_late_as_on_a_line_of_that_speed_and_a_late_thread_makes_up_for_it() {
    let table = limited(1, bits(1_000_000), 1);
    let pacing = table.pacing(ix(&table, 1)).unwrap();
    let (one, len) = (PACKET * 8 * 1000, PACKET as usize);
    for start in [SECOND, 60 * SECOND] {
        let mut sent = 0;
        for now in (start..start + 10 * SECOND).step_by(40 * MS as usize) {
            while pacing.ready_at(len, start) <= now {
                assert!(now >= start + one, "the first one does not arrive at once");
                pacing.charge(PACKET, 1, start, now);
                sent += 1;
            }
        }
        assert!((885..=893).contains(&sent), "{sent} packets of 11.2 ms in 10 s");
    }
    let fast = limited(1, bits(100_000_000), 1);
    let pacing = fast.pacing(ix(&fast, 1)).unwrap();
    assert_eq!(pacing.ready_at(len, SECOND), SECOND, "nobody would notice");
}

#[test]
fn members_with_one_limit_get_the_same() {
    let mut world = World::new();
    for member in [1, 2] {
        world.edit(member, MemberEdit { limit: Some(bits(8_000_000)), ..Default::default() });
    }
    let table = world.table(node(1));
    // One sends super-packets, the other small ones, both all the time.
    let mut sent = [0; 2];
    for now in (0..10 * SECOND).step_by(MS as usize) {
        for (member, size) in [(1, 60_000), (2, 100)] {
            let pacing = table.pacing(ix(&table, member)).unwrap();
            while pacing.ready_at(size as usize, 0) <= now {
                pacing.charge(size, size.div_ceil(1400), 0, now);
                sent[member as usize - 1] += size;
            }
        }
    }
    assert!(sent.iter().all(|bytes| (9_900_000..10_200_000).contains(bytes)), "{sent:?}");
}

#[test]
fn a_changed_limit_holds_at_once() {
    let mut world = World::new();
    world.edit(1, MemberEdit { limit: Some(bits(1000)), ..Default::default() });
    let table = world.table(node(1));
    let pacing = table.pacing(ix(&table, 1)).unwrap();
    pacing.charge(60_000, 44, SECOND, SECOND);
    assert!(pacing.ready_at(1, SECOND) > 400 * SECOND);
    world.edit(1, MemberEdit { limit: Some(bits(1_000_000)), ..Default::default() });
    let table = table.rebuild(world.book.roster());
    assert_eq!(table.pacing(ix(&table, 1)).unwrap().ready_at(0, 0), 0);
    world.edit(1, MemberEdit { limit: Some(Limit::default()), ..Default::default() });
    assert!(table.rebuild(world.book.roster()).pacing(ix(&table, 1)).is_none());
    assert!(table.pacing(ix(&table, 2)).is_none(), "another member has no limit");
}

#[test]
fn a_node_that_does_not_keep_to_the_limit_is_cut() {
    let table = limited(3, bits(8_000_000), 1);
    let peer = table.node_ix(&node(2)).unwrap();
    let packet = ping("10.0.0.4", "10.0.0.2");
    let verdict = table.from_peer(peer, &packet);
    let run = |every: u64, from: u64| {
        let sent = 10 * SECOND / every;
        let pass = |n: &u64| table.admit(&packet, &verdict, 1000, 1, from + n * every);
        (sent, (0..sent).filter(pass).count() as u64)
    };
    let (sent, passed) = run(MS, SECOND);
    assert_eq!(sent, passed, "what keeps to it loses nothing");
    let (_, passed) = run(MS / 10, 20 * SECOND);
    assert!((10_000..11_500).contains(&passed), "1 MB/s and some room, for 10 s: {passed}");
}
