//! Replicas behind a network that loses, repeats, reorders and forges: they reach the owner's
//! state, never a state that the owner did not sign, and never go back.

use std::{collections::BTreeMap, net::IpAddr};

use gvpn_identity::Identity;
use gvpn_model::{MemberId, NodeId};
use gvpn_roster::{
    Applied, Change, Delta, MemberEdit, NetworkSpec, OwnerBook, Replica, ReplicaError, RosterHash,
    SettingsEdit, Snapshot,
};
use proptest::prelude::*;

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 20])
}

fn host(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn new_book(salt: u8) -> OwnerBook {
    let mut secret = [0x11; 32];
    secret[0] = 1;
    let identity = Identity::from_secret(&secret).unwrap();
    OwnerBook::create(identity, [salt; 16], NetworkSpec::new("10.0.0.0/24".parse().unwrap()))
        .unwrap()
}

fn follower(book: &OwnerBook) -> Replica {
    Replica::new(book.network(), book.roster().owner)
}

/// One step of a run.
#[derive(Debug, Clone)]
enum Step {
    Add(u8, u8),
    RemoveNode(u8),
    Readdress(u8, u8),
    Move(u8, u8),
    Rename(u8, u8),
    Mtu(u16),
    /// The owner sends everything.
    SendFull,
    /// The owner sends what changed since a number of epochs.
    SendDelta(u8),
    /// The replica hears the update at this place among those in flight; it may stay there.
    Hear(u8, bool),
    /// An update in flight is damaged, then heard.
    HearDamaged(u8, u16, u8),
    OwnerRestarts,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        3 => (0u8..8, 2u8..20).prop_map(|(n, ip)| Add(n, ip)),
        1 => (0u8..8).prop_map(RemoveNode),
        2 => (0u8..12, 2u8..20).prop_map(|(m, ip)| Readdress(m, ip)),
        1 => (0u8..12, 0u8..8).prop_map(|(m, n)| Move(m, n)),
        1 => (0u8..12, 0u8..4).prop_map(|(m, name)| Rename(m, name)),
        1 => (1280u16..1300).prop_map(Mtu),
        1 => Just(SendFull),
        5 => (0u8..6).prop_map(SendDelta),
        6 => (any::<u8>(), any::<bool>()).prop_map(|(at, stays)| Hear(at, stays)),
        1 => (any::<u8>(), any::<u16>(), 1u8..).prop_map(|(a, b, c)| HearDamaged(a, b, c)),
        1 => Just(OwnerRestarts),
    ]
}

#[derive(Debug, Clone)]
enum Update {
    Full(Vec<u8>),
    Delta(Vec<u8>),
}

fn hear(replica: &mut Replica, update: &Update) -> Result<Applied, ReplicaError> {
    match update {
        Update::Full(bytes) => replica.apply_full(&Snapshot::decode(bytes)?),
        Update::Delta(bytes) => replica.apply_delta(&Delta::decode(bytes)?),
    }
}

fn mutate(book: &mut OwnerBook, step: &Step) {
    let member = |m: u8| MemberId(u32::from(m));
    // Refusals are part of the game: the book has tests of its own for them.
    let _ = match step {
        Step::Add(n, ip) => book.add_node(node(*n), host(*ip)).map(|_| ()),
        Step::RemoveNode(n) => book.remove_node(node(*n)),
        Step::Readdress(m, ip) => book
            .edit_member(
                member(*m),
                MemberEdit { ips: Some(vec![host(*ip)]), ..Default::default() },
            )
            .map(|_| ()),
        Step::Move(m, n) => book
            .edit_member(member(*m), MemberEdit { node: Some(node(*n)), ..Default::default() })
            .map(|_| ()),
        Step::Rename(m, name) => {
            let name = Some(Some(format!("name{name}")));
            book.edit_member(member(*m), MemberEdit { name, ..Default::default() }).map(|_| ())
        }
        Step::Mtu(mtu) => {
            book.edit_settings(SettingsEdit { mtu: Some(*mtu), ..Default::default() }).map(|_| ())
        }
        _ => Ok(()),
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn replicas_follow_through_any_network(steps in prop::collection::vec(step(), 1..60)) {
        let mut book = new_book(1);
        let mut replica = follower(&book);
        let mut history: BTreeMap<u64, RosterHash> = [(1, book.hash())].into();
        let mut flying = vec![Update::Full(book.snapshot().encode())];
        for step in &steps {
            let before = replica.epoch();
            match step {
                Step::SendFull => flying.push(Update::Full(book.snapshot().encode())),
                Step::SendDelta(back) => {
                    let since = book.epoch().saturating_sub(u64::from(*back));
                    flying.extend(book.delta_since(since).map(|d| Update::Delta(d.encode())));
                }
                Step::Hear(at, stays) => {
                    if !flying.is_empty() {
                        let at = usize::from(*at) % flying.len();
                        let update = if *stays { flying[at].clone() } else { flying.remove(at) };
                        // A delta that is no news or too far ahead is no error; nothing else may be.
                        let heard = hear(&mut replica, &update);
                        prop_assert!(heard.is_ok(), "{:?}", heard);
                    }
                }
                Step::HearDamaged(at, place, flip) => {
                    if !flying.is_empty() {
                        let at = usize::from(*at) % flying.len();
                        let mut update = flying[at].clone();
                        let (Update::Full(bytes) | Update::Delta(bytes)) = &mut update;
                        let place = usize::from(*place) % bytes.len();
                        bytes[place] ^= flip;
                        let _ = hear(&mut replica, &update);
                    }
                }
                Step::OwnerRestarts => {
                    let mut secret = [0x11; 32];
                    secret[0] = 1;
                    let identity = Identity::from_secret(&secret).unwrap();
                    book = OwnerBook::restore(identity, &book.save()).unwrap();
                }
                change => mutate(&mut book, change),
            }
            history.insert(book.epoch(), book.hash());
            prop_assert!(replica.epoch() >= before, "never back");
            if let Some(roster) = replica.roster() {
                prop_assert_eq!(history.get(&roster.epoch).copied(), replica.hash(), "only signed states");
                prop_assert_eq!(roster.hash(), replica.hash().unwrap(), "the hash is the roster's");
            }
        }
        // Whatever happened, one update brings the replica to the owner's state.
        let last = book.delta_since(replica.epoch()).filter(|_| replica.epoch() > 0);
        match last {
            Some(delta) => replica.apply_delta(&delta).map(|_| ()).unwrap(),
            None => replica.apply_full(&book.snapshot()).map(|_| ()).unwrap(),
        }
        prop_assert_eq!(replica.roster(), Some(book.roster()));
        prop_assert_eq!(book.hash(), book.roster().hash(), "the kept hash is the whole's");
    }

    #[test]
    fn rubbish_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut replica = follower(&new_book(1));
        prop_assert!(hear(&mut replica, &Update::Full(bytes.clone())).is_err());
        // A delta may be refused or called too far ahead; it never makes a roster.
        let _ = hear(&mut replica, &Update::Delta(bytes));
        prop_assert!(replica.roster().is_none());
    }
}

#[test]
fn only_the_owner_is_followed() {
    let book = new_book(1);
    let stranger = Identity::generate();
    let mut replica = follower(&book);
    // The stranger signs the same roster.
    let mut forged = book.snapshot();
    let head = forged.head.peek().unwrap();
    forged.head = gvpn_roster::SignedHead::sign(&stranger, &head);
    assert_eq!(replica.apply_full(&forged), Err(ReplicaError::Signature(book.roster().owner)));
    // The stranger claims the network's id for itself.
    let mut hostile = Replica::new(book.network(), stranger.node_id());
    let mut roster = book.roster().clone();
    roster.owner = stranger.node_id();
    let head = gvpn_roster::Head { hash: roster.hash(), ..head };
    let claimed = Snapshot { head: gvpn_roster::SignedHead::sign(&stranger, &head), roster };
    assert_eq!(
        hostile.apply_full(&claimed),
        Err(ReplicaError::NotTheOwners(book.network(), stranger.node_id()))
    );
    // Another network of the same owner is another network.
    let other = new_book(2);
    assert_eq!(
        replica.apply_full(&other.snapshot()),
        Err(ReplicaError::WrongNetwork(other.network()))
    );
    assert!(replica.roster().is_none());
}

#[test]
fn content_that_was_not_signed_changes_nothing() {
    let mut book = new_book(1);
    let mut replica = follower(&book);
    replica.apply_full(&book.snapshot()).unwrap();
    book.add_node(node(1), host(2)).unwrap();
    book.edit_settings(SettingsEdit { mtu: Some(1300), ..Default::default() }).unwrap();
    let honest = book.delta_since(1).unwrap();
    let before = replica.clone();
    for at in 0..honest.changes.len() {
        let mut delta = honest.clone();
        delta.changes.remove(at);
        assert_eq!(replica.apply_delta(&delta), Err(ReplicaError::Hash(3)));
    }
    let mut delta = honest.clone();
    for change in &mut delta.changes {
        if let Change::Member(member) = change {
            member.ips = vec![host(77)];
        }
    }
    delta.changes.push(Change::Removed(MemberId(0)));
    assert_eq!(replica.apply_delta(&delta), Err(ReplicaError::Hash(3)));
    assert_eq!(replica.roster(), before.roster());
    assert_eq!(replica.apply_delta(&honest), Ok(Applied::Applied));
    assert_eq!(replica.roster(), Some(book.roster()));
}

#[test]
fn old_epochs_are_stale_and_gaps_ask_for_more() {
    let mut book = new_book(1);
    let mut replica = follower(&book);
    let first = book.snapshot();
    book.add_node(node(1), host(2)).unwrap();
    let second = book.delta_since(1).unwrap();
    book.add_node(node(2), host(3)).unwrap();
    let third = book.delta_since(2).unwrap();
    let both = book.delta_since(1).unwrap();
    assert_eq!(replica.apply_delta(&second), Ok(Applied::NeedFull));
    assert_eq!(replica.apply_full(&first), Ok(Applied::Applied));
    assert_eq!(replica.apply_delta(&third), Ok(Applied::NeedFull));
    assert_eq!(replica.apply_delta(&second), Ok(Applied::Applied));
    // A delta over a span helps a replica that is within the span.
    assert_eq!(replica.apply_delta(&both), Ok(Applied::Applied));
    for stale in [&second, &third, &both] {
        assert_eq!(replica.apply_delta(stale), Ok(Applied::Stale));
    }
    assert_eq!(replica.apply_full(&first), Ok(Applied::Stale));
    assert_eq!(replica.roster(), Some(book.roster()));
    // Passed on by a member, the roster proves itself as well.
    let mut late = follower(&book);
    assert_eq!(late.apply_full(&replica.snapshot().unwrap()), Ok(Applied::Applied));
}

#[test]
fn a_fork_is_noticed_and_proved() {
    let mut book = new_book(1);
    let saved = book.save();
    book.add_node(node(1), host(2)).unwrap();
    let mut secret = [0x11; 32];
    secret[0] = 1;
    let mut twin = OwnerBook::restore(Identity::from_secret(&secret).unwrap(), &saved).unwrap();
    twin.add_node(node(9), host(2)).unwrap();
    let mut replica = follower(&book);
    replica.apply_full(&book.snapshot()).unwrap();
    for forked in
        [replica.apply_full(&twin.snapshot()), replica.apply_delta(&twin.delta_since(1).unwrap())]
    {
        let Err(ReplicaError::Fork(fork)) = forked else { panic!("{forked:?}") };
        let heads = [&fork.kept, &fork.refused].map(|h| h.verify(book.roster().owner).unwrap());
        assert_eq!(heads[0].epoch, heads[1].epoch);
        assert_ne!(heads[0].hash, heads[1].hash);
    }
    assert_eq!(replica.roster(), Some(book.roster()), "the first is kept");
    // An owner that lost an epoch moves past what its members saw.
    twin.overtake(replica.epoch());
    assert_eq!(replica.apply_full(&twin.snapshot()), Ok(Applied::Applied));
}

#[test]
fn ten_thousand_members_travel_as_deltas() {
    let identity = Identity::generate();
    let spec = NetworkSpec::new("10.0.0.0/16".parse().unwrap());
    let mut book = OwnerBook::create(identity, [5; 16], spec).unwrap();
    for n in 0..10_000u32 {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let ip = IpAddr::from((0x0a00_0002 + n + n / 250).to_be_bytes());
        book.add_node(NodeId::from_bytes(id), ip).unwrap();
    }
    let mut replica = follower(&book);
    let full = book.snapshot().encode();
    replica.apply_full(&Snapshot::decode(&full).unwrap()).unwrap();
    let epoch = book.epoch();
    book.edit_member(
        MemberId(5000),
        MemberEdit { name: Some(Some("x".into())), ..Default::default() },
    )
    .unwrap();
    let delta = book.delta_since(epoch).unwrap().encode();
    assert!(delta.len() < 300, "one change is small: {}", delta.len());
    assert!(full.len() < 10_001 * 64, "a member is small: {}", full.len());
    assert_eq!(replica.apply_delta(&Delta::decode(&delta).unwrap()), Ok(Applied::Applied));
    assert_eq!(replica.hash(), Some(book.hash()));
    assert!(book.delta_since(1).is_none(), "too long ago: a snapshot is needed");
}
