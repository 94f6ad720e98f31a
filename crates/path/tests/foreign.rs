//! Whatever a peer, a relay or a stranger sends: an agent does not panic, keeps little, and answers
//! with no more than it got.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_path::{Agent, Hop, MAX_HOPS, Message, Nature, Source, Timing, socket_addr};
use proptest::{collection::vec, prelude::*};

/// Something that happens to an agent.
#[derive(Debug, Clone)]
enum Happening {
    Probe(u8, Vec<u8>),
    /// A well-formed reply or probe with these contents.
    Message(u8, u64, bool, u16),
    Heard(u8),
    Hint(u8),
    Added(u8),
    Removed(u8),
    TooLarge(u16),
    Sent,
    Punch,
    Moved,
    Session(bool),
    Natures(u8, u8),
    Proposed,
    Seen(Option<u8>),
    Sockets(u8),
    Sweep,
    Time(u16),
}

fn hop(number: u8) -> Hop {
    let addr = SocketAddr::from(([192, 0, 2, number], 7));
    if number.is_multiple_of(5) {
        Hop::Relay { relay: addr, session: number.into() }
    } else {
        Hop::Direct(addr)
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (any::<u8>(), vec(any::<u8>(), 0..64)).prop_map(|(h, b)| Happening::Probe(h, b)),
        (any::<u8>(), 0..200u64, any::<bool>(), any::<u16>())
            .prop_map(|(h, t, p, l)| Happening::Message(h, t, p, l)),
        any::<u8>().prop_map(Happening::Heard),
        any::<u8>().prop_map(Happening::Hint),
        any::<u8>().prop_map(Happening::Added),
        any::<u8>().prop_map(Happening::Removed),
        any::<u16>().prop_map(Happening::TooLarge),
        Just(Happening::Sent),
        Just(Happening::Punch),
        Just(Happening::Moved),
        any::<bool>().prop_map(Happening::Session),
        any::<u16>().prop_map(Happening::Time),
        (0..4u8, 0..4u8).prop_map(|(own, peer)| Happening::Natures(own, peer)),
        Just(Happening::Proposed),
        proptest::option::of(any::<u8>()).prop_map(Happening::Seen),
        any::<u8>().prop_map(Happening::Sockets),
        Just(Happening::Sweep),
    ]
}

fn apply(agent: &mut Agent, now: &mut Instant, what: Happening) -> usize {
    let mut got = 0;
    match what {
        Happening::Probe(h, bytes) => {
            got = bytes.len();
            agent.handle_probe(*now, hop(h), &bytes);
        }
        Happening::Message(h, token, probe, length) => {
            let message = if probe {
                Message::Probe { token, moved: token.is_multiple_of(2), length: length.max(12) }
            } else {
                Message::Reply { token, length, observed: Some(SocketAddr::from(([0; 4], length))) }
            };
            let bytes = message.encode();
            got = bytes.len();
            agent.handle_probe(*now, hop(h), &bytes);
        }
        Happening::Heard(h) => agent.handle_heard(*now, hop(h)),
        Happening::Hint(h) => agent.handle_hint(*now, hop(h)),
        Happening::Added(h) => agent.add_candidate(*now, hop(h), Source::Told),
        Happening::Removed(h) => agent.remove_candidate(*now, hop(h)),
        Happening::TooLarge(size) => agent.handle_too_large(*now, size),
        Happening::Sent => agent.handle_sent(*now),
        Happening::Punch => agent.punch(*now),
        Happening::Moved => agent.local_change(*now),
        Happening::Session(true) => agent.session_up(*now),
        Happening::Session(false) => agent.session_down(),
        Happening::Natures(own, peer) => {
            agent.set_nature(Nature::of_number(own));
            agent.set_peer_nature(Nature::of_number(peer));
        }
        Happening::Proposed => agent.handle_guess_proposed(*now),
        Happening::Seen(at) => agent.guess_at(*now, at.map(|at| hop(at).wire_addr())),
        Happening::Sockets(count) => {
            let sockets = (0..count).map(|id| Hop::Direct(socket_addr(id.into())));
            agent.guess_from(sockets.collect());
        }
        Happening::Sweep => agent.sweep(*now),
        Happening::Time(ms) => {
            *now += Duration::from_millis(ms.into());
            agent.handle_timeout(*now);
        }
    }
    got
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_are_a_message_or_none(bytes in vec(any::<u8>(), 0..1600)) {
        if let Some(message) = Message::decode(&bytes) {
            // What was understood means the same when it is said again.
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn an_agent_survives_whatever_happens(story in vec(happening(), 0..200)) {
        let mut now = Instant::now();
        let mut agent = Agent::new(Timing::default(), 7);
        for what in story {
            while agent.poll_transmit().is_some() {}
            let answers = matches!(what, Happening::Probe(..) | Happening::Message(..));
            let got = apply(&mut agent, &mut now, what);
            prop_assert!(agent.hops().count() <= MAX_HOPS);
            let sent: Vec<_> = std::iter::from_fn(|| agent.poll_transmit()).collect();
            if answers {
                prop_assert!(sent.len() <= 1, "{sent:?}");
                // A reply says where the probe came from, which is at most 19 bytes.
                prop_assert!(sent.iter().all(|t| t.bytes.len() <= got.max(12) + 19));
            }
            while agent.poll_event().is_some() {}
            agent.report(now);
            agent.poll_timeout(now);
        }
    }
}
