//! Rosters from those who may not send them, or not these: each is refused with a reason, and what was
//! in force stays, whole.

use std::{sync::Arc, time::Duration};

use gvpn_identity::Identity;
use gvpn_model::{NetworkId, NodeId};
use gvpn_net::{Net, NetConfig};
use gvpn_node::{
    ErrorKind, Node, NodeConfig, NodeError,
    proto::{self, HitsReply, HitsRequest, RosterReply, RosterRequest, UpdateKind},
};
use gvpn_roster::{MemberEdit, MemberSpec, NetworkSpec, OwnerBook, Roster};
use tempfile::TempDir;

struct World {
    victim: Node,
    owner: Net,
    stranger: Net,
    book: OwnerBook,
    identity: Identity,
    _dir: TempDir,
}

type Answer = Result<RosterReply, NodeError>;

impl World {
    /// A node that follows a network of `owner`.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::new(dir.path().join("victim"), Identity::generate());
        config.listen = vec![([127, 0, 0, 1], 0).into()];
        config.workers = 1;
        let victim = Node::start(config).await.unwrap();
        let identity = Identity::generate();
        let owner = net(&identity, &victim).await;
        let stranger = net(&Identity::generate(), &victim).await;
        let book = book(&identity, 1, victim.id());
        let world = Self { victim, owner, stranger, book, identity, _dir: dir };
        assert_eq!(world.push(&world.owner, &world.book).await, Ok(world.at()));
        world
    }

    fn at(&self) -> RosterReply {
        let hash = self.book.hash();
        let hash = hash.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        RosterReply::At { epoch: self.book.epoch(), hash }
    }

    async fn push(&self, from: &Net, book: &OwnerBook) -> Answer {
        let bytes = book.snapshot().encode();
        self.push_bytes(from, book.network(), UpdateKind::Snapshot, &bytes).await
    }

    async fn push_bytes(
        &self,
        from: &Net,
        network: NetworkId,
        kind: UpdateKind,
        bytes: &[u8],
    ) -> Answer {
        let mut stream = from.open(self.victim.id(), proto::ROSTER).await.unwrap();
        proto::send(&mut stream, &RosterRequest::Push { network, kind }).await.unwrap();
        proto::send_frame(&mut stream, bytes).await.unwrap();
        proto::receive(&mut stream).await.unwrap().unwrap()
    }

    fn in_force(&self) -> Option<Arc<Roster>> {
        self.victim.networks().in_force(self.book.network())
    }

    fn unchanged(&self) {
        assert_eq!(self.in_force().as_deref(), Some(self.book.roster()));
    }

    fn rename(&mut self, name: &str) {
        rename(&mut self.book, name);
    }
}

async fn net(identity: &Identity, victim: &Node) -> Net {
    let listen = vec![([127, 0, 0, 1], 0).into()];
    let config = NetConfig { listen, workers: 1, ..NetConfig::new(identity.clone()) };
    let net = Net::bind(config).await.unwrap();
    net.add_peer_addrs(victim.id(), victim.status().listen);
    net
}

fn book(identity: &Identity, salt: u8, node: NodeId) -> OwnerBook {
    let spec = NetworkSpec::new("10.0.0.0/24".parse().unwrap());
    let mut book = OwnerBook::create(identity.clone(), [salt; 16], spec).unwrap();
    book.add_member(MemberSpec::new(node, vec![])).unwrap();
    book
}

fn rename(book: &mut OwnerBook, name: &str) {
    let member = book.roster().members[1].id;
    let edit = MemberEdit { name: Some(Some(name.into())), ..MemberEdit::default() };
    book.edit_member(member, edit).unwrap();
}

fn refused(answer: Answer, kind: ErrorKind) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.message.len() > 15, "says why: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_and_only_what_it_signed_is_followed() {
    let mut world = World::new().await;
    // Somebody else brings what the owner signed, its own network under that name, or an order.
    let answer = world.push(&world.stranger, &world.book).await;
    refused(answer, ErrorKind::Forbidden);
    let theirs = book(&Identity::generate(), 9, world.victim.id()).snapshot().encode();
    for (from, kind) in
        [(&world.stranger, ErrorKind::Forbidden), (&world.owner, ErrorKind::Invalid)]
    {
        let network = world.book.network();
        let answer = world.push_bytes(from, network, UpdateKind::Snapshot, &theirs).await;
        refused(answer, kind);
    }
    let mut stream = world.stranger.open(world.victim.id(), proto::ROSTER).await.unwrap();
    let forget = RosterRequest::Forget { network: world.book.network() };
    proto::send(&mut stream, &forget).await.unwrap();
    refused(proto::receive(&mut stream).await.unwrap().unwrap(), ErrorKind::Forbidden);
    let mut stream = world.stranger.open(world.victim.id(), proto::HITS).await.unwrap();
    let ask = HitsRequest { network: world.book.network() };
    proto::send(&mut stream, &ask).await.unwrap();
    let answer: Result<HitsReply, NodeError> = proto::receive(&mut stream).await.unwrap().unwrap();
    assert_eq!(answer.unwrap_err().kind, ErrorKind::Forbidden);
    world.unchanged();
    // A network that the node does not know yet, from somebody who does not own it.
    let other = book(&world.identity, 2, world.victim.id());
    refused(world.push(&world.stranger, &other).await, ErrorKind::Forbidden);
    assert_eq!(world.victim.networks().memberships(), 1);
    // And one that it is not in.
    let elsewhere = book(&world.identity, 3, NodeId::from_bytes([3; 20]));
    refused(world.push(&world.owner, &elsewhere).await, ErrorKind::Refused);
    assert_eq!(world.victim.networks().memberships(), 1);
    // Damaged in every place in turn.
    world.rename("next");
    let good = world.book.snapshot().encode();
    let before = world.in_force();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        let network = world.book.network();
        let answer = world.push_bytes(&world.owner, network, UpdateKind::Snapshot, &bad).await;
        assert!(answer.is_err(), "byte {at}: {answer:?}");
        assert_eq!(world.in_force(), before, "byte {at}");
    }
    assert_eq!(world.push(&world.owner, &world.book).await, Ok(world.at()));
    world.unchanged();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_epochs_and_forks_change_nothing() {
    let mut world = World::new().await;
    let old = world.book.clone();
    world.rename("one");
    world.rename("two");
    assert_eq!(world.push(&world.owner, &world.book).await, Ok(world.at()));
    // An old epoch, replayed, is answered with what is in force.
    assert_eq!(world.push(&world.owner, &old).await, Ok(world.at()));
    world.unchanged();
    // Another roster of the same epoch, just as well signed.
    let mut fork = old.clone();
    rename(&mut fork, "three");
    rename(&mut fork, "four");
    assert_eq!(fork.epoch(), world.book.epoch());
    refused(world.push(&world.owner, &fork).await, ErrorKind::Conflict);
    world.unchanged();
    // A change from an epoch that the node does not have asks for more.
    let mut ahead = world.book.clone();
    rename(&mut ahead, "five");
    let from = ahead.epoch();
    rename(&mut ahead, "six");
    let delta = ahead.delta_since(from).unwrap().encode();
    let network = world.book.network();
    let answer = world.push_bytes(&world.owner, network, UpdateKind::Delta, &delta).await;
    assert_eq!(answer, Ok(RosterReply::Need { epoch: world.book.epoch() }));
    world.unchanged();
    // An owner that lost its last epochs moves past them, and is followed again.
    fork.overtake(world.book.epoch());
    assert!(world.push(&world.owner, &fork).await.is_ok());
    tokio::time::timeout(Duration::from_secs(60), async {
        while world.in_force().as_deref() != Some(fork.roster()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}
