//! Networks of up to ten thousand members, without the wires: what travels, what is kept, and whether
//! everybody gets there over links that lose and repeat.
//!
//! With `GVPN_FIGURES=1` the figures are written into `docs/networks.md`.

use std::{
    fmt::Write as _,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use gvpn_identity::Identity;
use gvpn_lab::{figures, heap};
use gvpn_model::{MemberId, NodeId};
use gvpn_roster::{Delta, MemberEdit, MemberSpec, NetworkSpec, OwnerBook, Replica, Snapshot};
use gvpn_switch::Table;

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// Memory of the whole process is counted: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Members on one node.
const ON_A_NODE: u32 = 10;

fn node(n: u32) -> NodeId {
    let mut id = [7; 20];
    id[..4].copy_from_slice(&(n / ON_A_NODE).to_be_bytes());
    NodeId::from_bytes(id)
}

fn book(members: u32) -> OwnerBook {
    let spec = NetworkSpec::new("10.0.0.0/16".parse().unwrap());
    let mut book = OwnerBook::create(Identity::generate(), [5; 16], spec).unwrap();
    for n in 1..members {
        let name = Some(format!("member-number-{n}"));
        let spec = MemberSpec { name, ..MemberSpec::new(node(n), vec![address(n)]) };
        book.add_member(spec).unwrap();
    }
    book
}

fn address(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0001 + n).to_be_bytes())
}

fn follower(book: &OwnerBook) -> Replica {
    let mut replica = Replica::new(book.network(), book.roster().owner);
    replica.apply_full(&Snapshot::decode(&book.snapshot().encode()).unwrap()).unwrap();
    replica
}

fn rename(book: &mut OwnerBook, member: u32, name: &str) {
    let edit = MemberEdit { name: Some(Some(name.to_owned())), ..MemberEdit::default() };
    book.edit_member(MemberId(member), edit).unwrap();
}

#[test]
fn a_member_is_small_on_the_wire_and_in_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut table = String::from(
        "| members | whole roster | a member of it | one change | one join | memory a member |\n\
         |---|---|---|---|---|---|\n",
    );
    for members in [10, 100, 1000, 10_000] {
        let mut book = book(members);
        let snapshot = book.snapshot().encode().len();
        let before = heap::in_use();
        let replica = follower(&book);
        let switch = Table::build(replica.roster().unwrap(), node(1));
        let memory = (heap::in_use() - before) / members as usize;
        drop((switch, replica));
        let epoch = book.epoch();
        rename(&mut book, members / 2, "another");
        let change = book.delta_since(epoch).unwrap().encode().len();
        let epoch = book.epoch();
        book.add_member(MemberSpec::new(node(members), vec![address(members)])).unwrap();
        let join = book.delta_since(epoch).unwrap().encode().len();
        assert!(change < 300 && join < 300, "a change is small: {change}, {join}");
        assert!(snapshot < members as usize * 80 + 300, "a member is small: {snapshot}");
        assert!(memory < 4096, "a member is small: {memory}");
        let each = snapshot / members as usize;
        writeln!(
            table,
            "| {members} | {snapshot} B | {each} B | {change} B | {join} B | {memory} B |"
        )
        .unwrap();
    }
    println!("{table}");
    if figures::wanted() {
        figures::write("networks.md", "roster-size", &table).unwrap();
    }
}

/// What an update on its way to a replica is.
enum Update {
    Full(Vec<u8>),
    Delta(Vec<u8>),
}

/// A follower behind a link that loses a third of what it is sent and delivers late and twice.
struct Far {
    replica: Replica,
    acknowledged: u64,
    on_the_way: Vec<Update>,
    bytes: usize,
}

impl Far {
    fn send(&mut self, book: &OwnerBook, random: &mut impl FnMut(u32) -> u32) {
        let update = match book.delta_since(self.acknowledged) {
            Some(delta) => Update::Delta(delta.encode()),
            None => Update::Full(book.snapshot().encode()),
        };
        let (Update::Full(bytes) | Update::Delta(bytes)) = &update;
        self.bytes += bytes.len();
        if random(3) > 0 {
            self.on_the_way.push(update);
        }
    }

    fn hear(&mut self, random: &mut impl FnMut(u32) -> u32) {
        for _ in 0..2 {
            if self.on_the_way.is_empty() {
                return;
            }
            let at = random(self.on_the_way.len() as u32) as usize;
            let applied = match &self.on_the_way[at] {
                Update::Full(bytes) => self.replica.apply_full(&Snapshot::decode(bytes).unwrap()),
                Update::Delta(bytes) => self.replica.apply_delta(&Delta::decode(bytes).unwrap()),
            };
            applied.unwrap();
            if random(4) > 0 {
                self.on_the_way.swap_remove(at);
            }
        }
        self.acknowledged = self.acknowledged.max(self.replica.epoch());
    }
}

#[test]
fn ten_thousand_members_agree_over_bad_links() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut seed = 1u32;
    let mut random = move |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    let mut book = book(10_000);
    let mut far: Vec<_> = (0..8)
        .map(|_| Far {
            replica: follower(&book),
            acknowledged: book.epoch(),
            on_the_way: Vec::new(),
            bytes: 0,
        })
        .collect();
    let (mut next, mut tables) = (10_000, Table::build(book.roster(), node(1)));
    for step in 0..300 {
        match random(4) {
            0 => {
                book.add_member(MemberSpec::new(node(next), vec![address(next)])).unwrap();
                next += 1;
            }
            1 => {
                let member = MemberId(1 + random(9000));
                let _ = book.remove_member(member);
            }
            2 => {
                let edit =
                    MemberEdit { quarantined: Some(random(2) == 0), ..MemberEdit::default() };
                let _ = book.edit_member(MemberId(9100 + random(400)), edit);
            }
            _ => rename(&mut book, 9500 + random(400), &format!("step-{step}")),
        }
        for one in &mut far {
            one.send(&book, &mut random);
            one.hear(&mut random);
        }
    }
    let mut rounds = 0;
    while far.iter().any(|one| one.replica.epoch() < book.epoch()) {
        for one in &mut far {
            one.send(&book, &mut random);
            one.hear(&mut random);
        }
        rounds += 1;
        assert!(rounds < 1000, "they do not get there");
    }
    for one in &far {
        assert_eq!(one.replica.hash(), Some(book.hash()));
        assert_eq!(one.replica.roster(), Some(book.roster()));
        assert!(one.bytes < 300 * 4000, "deltas, not whole rosters: {} B", one.bytes);
    }
    tables = tables.rebuild(far[0].replica.roster().unwrap());
    assert_eq!(tables.members().len(), book.roster().members.len());
}
