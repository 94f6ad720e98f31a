//! A home in virtual time, its relays played by hand.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_home::{Action, Activity, Answer, Home, Request, Timing};
use gvpn_model::NodeId;

const SECOND: Duration = Duration::from_secs(1);

/// A node, and relays that do as they are told.
struct World {
    home: Home,
    now: Instant,
    /// The round trip of relays that answer calls and signs of life.
    alive: Vec<(SocketAddr, Duration)>,
    /// Calls, connections among them, and what has come on each.
    calls: Vec<(SocketAddr, u64, u64)>,
    /// What was done, and when.
    done: Vec<(Instant, Action)>,
}

fn relay(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, number], 7464))
}

fn peer() -> NodeId {
    format!("0x{:040x}", 7).parse().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    fn new(told: &[u8], alive: &[(u8, u64)]) -> Self {
        let now = Instant::now();
        let told: Vec<_> = told.iter().map(|number| relay(*number)).collect();
        let alive = alive.iter().map(|(number, rtt)| (relay(*number), ms(*rtt))).collect();
        let home = Home::new(now, &told, Timing::default());
        let mut world = Self { home, now, alive, calls: Vec::new(), done: Vec::new() };
        world.run(ms(1));
        world
    }

    fn rtt(&self, addr: SocketAddr) -> Option<Duration> {
        self.alive.iter().find(|(known, _)| *known == addr).map(|(_, rtt)| *rtt)
    }

    fn set_rtt(&mut self, number: u8, rtt: Option<u64>) {
        self.alive.retain(|(known, _)| *known != relay(number));
        self.alive.extend(rtt.map(|rtt| (relay(number), ms(rtt))));
    }

    fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(at) = self.home.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tell_activity();
            self.home.handle_timeout(self.now);
            self.act();
        }
        self.now = end;
        self.tell_activity();
    }

    fn tell_activity(&mut self) {
        for (addr, call, received) in self.calls.clone() {
            if let Some(rtt) = self.rtt(addr) {
                let activity = Activity { received, rtt, used: false };
                self.home.handle_activity(self.now, call, &activity);
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.home.poll_action() {
            self.done.push((self.now, action.clone()));
            match action {
                Action::Call { relay, call } => match self.rtt(relay) {
                    Some(rtt) => {
                        self.calls.push((relay, call, 0));
                        self.home.handle_connected(self.now, call, rtt);
                    }
                    None => self.home.handle_ended(self.now, call, "no answer"),
                },
                Action::HangUp { call, .. } => {
                    self.calls.retain(|(_, known, _)| *known != call);
                    self.home.handle_ended(self.now, call, "hung up");
                }
                Action::Ping { relay, call } if self.rtt(relay).is_some() => {
                    let known = self.calls.iter_mut().find(|(_, known, _)| *known == call);
                    known.unwrap().2 += 1;
                }
                _ => {}
            }
        }
    }

    /// A relay answers what it was asked last.
    fn found(&mut self, number: u8, homes: &[u8], session: Option<u32>) {
        let asked = self.sent(number).into_iter().rev().find_map(|request| match request {
            Request::Find { request, .. } => Some(request),
            _ => None,
        });
        let relays = homes.iter().map(|number| relay(*number)).collect();
        let answer = Answer { addrs: Vec::new(), relays, session };
        let asked = asked.expect("it was asked");
        self.home.handle_found(self.now, relay(number), asked, Ok(answer));
        self.act();
        self.run(ms(1));
    }

    fn look_up(&mut self) -> u32 {
        let id = self.home.look_up(self.now, peer());
        self.act();
        id
    }

    fn sent(&self, number: u8) -> Vec<Request> {
        let sent = |action: &Action| match action {
            Action::Send { relay: to, request, .. } if *to == relay(number) => {
                Some(request.clone())
            }
            _ => None,
        };
        self.done.iter().filter_map(|(_, action)| sent(action)).collect()
    }

    fn count(&self, what: impl Fn(&Action) -> bool) -> usize {
        self.done.iter().filter(|(_, action)| what(action)).count()
    }

    fn is_done(&self, id: u32) -> bool {
        self.count(|a| matches!(a, Action::Done { look_up, .. } if *look_up == id)) == 1
    }
}

fn is_call(number: u8) -> impl Fn(&Action) -> bool {
    move |action| matches!(action, Action::Call { relay: to, .. } if *to == relay(number))
}

fn is_ping(action: &Action) -> bool {
    matches!(action, Action::Ping { .. })
}

#[test]
fn it_registers_at_once_and_then_only_keeps_alive() {
    let mut world = World::new(&[1], &[(1, 20)]);
    assert_eq!(world.sent(1), [Request::Register { relays: vec![relay(1)] }]);
    world.run(SECOND);
    world.done.clear();
    world.run(80 * SECOND);
    assert_eq!(world.count(is_ping), 10, "one every eight seconds");
    assert_eq!(world.done.len(), 10, "and nothing else");
}

#[test]
fn a_relay_that_comes_later_is_named_to_the_others() {
    let mut world = World::new(&[1, 2], &[(1, 20)]);
    world.set_rtt(2, Some(18));
    world.run(6 * SECOND);
    // It is a little nearer: that is no reason to make it the home.
    let both = Request::Register { relays: vec![relay(1), relay(2)] };
    assert_eq!(world.sent(1).last(), Some(&both));
    assert_eq!(world.sent(2).last(), Some(&both));
    assert_eq!(world.home.home(), Some(relay(1)));
}

#[test]
fn a_relay_that_comes_and_is_clearly_nearer_is_home_at_once() {
    let mut world = World::new(&[1, 2], &[(1, 40)]);
    world.set_rtt(2, Some(10));
    world.run(6 * SECOND);
    assert_eq!(world.home.home(), Some(relay(2)));
    let named = Request::Register { relays: vec![relay(2), relay(1)] };
    assert_eq!(world.sent(1).last(), Some(&named));
}

#[test]
fn the_home_stays_if_it_only_seemed_far() {
    let mut world = World::new(&[1, 2], &[(1, 10), (2, 12)]);
    world.run(60 * SECOND);
    // An answer was late; while the home is measured, its average is as before again.
    world.set_rtt(1, Some(30));
    world.run(6 * SECOND);
    world.set_rtt(1, Some(10));
    world.run(60 * SECOND);
    assert_eq!(world.home.home(), Some(relay(1)));
    // If it stays far, it is home no longer.
    world.set_rtt(1, Some(30));
    world.run(20 * SECOND);
    assert_eq!(world.home.home(), Some(relay(2)));
}

#[test]
fn a_relay_that_dies_is_given_up_and_called_ever_more_rarely() {
    let mut world = World::new(&[1, 2], &[(1, 10), (2, 50)]);
    world.set_rtt(1, None);
    world.run(17 * SECOND);
    let silent = |a: &Action| matches!(a, Action::HangUp { silent: true, .. });
    assert_eq!(world.count(silent), 1, "it was silent from one keep-alive to the next");
    world.run(4 * SECOND);
    assert_eq!(world.home.home(), Some(relay(2)));
    assert_eq!(world.sent(2).last(), Some(&Request::Register { relays: vec![relay(2)] }));
    world.run(30 * SECOND);
    world.done.clear();
    world.run(50 * SECOND);
    assert_eq!(world.count(is_call(1)), 10, "every five seconds at last");
}

#[test]
fn doubt_gives_a_relay_one_second() {
    let mut world = World::new(&[1], &[(1, 10)]);
    world.run(3 * SECOND);
    world.set_rtt(1, None);
    world.home.doubt(world.now, relay(1));
    world.act();
    let begun = world.now;
    world.run(2 * SECOND);
    let hung_up = world.done.iter().find(|(_, a)| matches!(a, Action::HangUp { .. }));
    assert_eq!(hung_up.map(|(at, _)| *at - begun), Some(SECOND));
}

#[test]
fn sessions_are_resumed_with_a_relay_that_comes_back() {
    let mut world = World::new(&[1], &[(1, 10)]);
    world.home.handle_session(relay(1), 5, peer());
    let call = world.calls[0].1;
    world.calls.clear();
    world.home.handle_ended(world.now, call, "reset");
    world.run(SECOND);
    assert_eq!(world.sent(1).last(), Some(&Request::Resume { sessions: vec![(5, peer())] }));
}

#[test]
fn a_session_that_the_relay_does_not_know_is_asked_for_anew() {
    let mut world = World::new(&[1], &[(1, 10)]);
    world.run(10 * SECOND);
    world.home.handle_session(relay(1), 5, peer());
    world.home.handle_unknown_session(world.now, relay(1), 5);
    world.home.handle_unknown_session(world.now, relay(1), 5);
    world.act();
    world.run(2 * SECOND);
    let asked = world.sent(1).into_iter().filter(|r| matches!(r, Request::Find { .. })).count();
    assert_eq!(asked, 1);
}

#[test]
fn a_look_up_visits_the_relay_where_the_peer_is_at_home() {
    let mut world = World::new(&[1], &[(1, 10), (2, 10)]);
    let id = world.look_up();
    world.found(1, &[2], None);
    assert_eq!(world.count(is_call(2)), 1);
    assert!(!world.is_done(id));
    world.found(2, &[2], Some(9));
    assert!(world.is_done(id));
    assert_eq!(world.home.named(), [relay(1)], "who visits is not at home there");
    // A visit that is of no use ends.
    world.run(400 * SECOND);
    let over = |a: &Action| matches!(a, Action::HangUp { relay: at, silent: false, .. } if *at == relay(2));
    assert_eq!(world.count(over), 1);
}

#[test]
fn a_relay_that_forwards_in_vain_is_not_believed_when_the_peer_is_looked_for_again() {
    let mut world = World::new(&[1], &[(1, 10), (2, 10)]);
    let first = world.look_up();
    world.found(1, &[2], Some(9));
    assert!(world.is_done(first));
    assert_eq!(world.count(is_call(2)), 0);
    // It may have lost sight of the peer.
    world.run(SECOND);
    let second = world.look_up();
    world.found(1, &[2], Some(9));
    assert_eq!(world.count(is_call(2)), 1);
    world.found(2, &[2], Some(4));
    assert!(world.is_done(second));
    // Long after, the peer is looked for as at first.
    world.run(20 * SECOND);
    let third = world.look_up();
    world.found(1, &[2], Some(9));
    world.found(2, &[2], Some(4));
    assert!(world.is_done(third));
    assert_eq!(world.count(is_call(2)), 1);
}
