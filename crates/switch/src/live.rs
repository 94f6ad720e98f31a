//! What outlives a roster's epoch.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use gvpn_model::{MemberId, NodeId};
use gvpn_roster::{Limit, Roster, RuleId};
use parking_lot::Mutex;

use crate::{acl::Counter, bucket::Bucket, gateway::Asked, groups::Groups, igmp::Membership};

type Watcher = Box<dyn Fn() + Send + Sync>;
type Elsewhere = Box<dyn Fn(Asked) -> bool + Send + Sync>;
type Segments = Box<dyn Fn(MemberId, &[u8]) -> bool + Send + Sync>;

/// State of a network on this node that the tables of successive epochs share: multicast
/// memberships, rate limits and counters. Times are nanoseconds of any monotonic clock.
#[derive(Default)]
pub struct Live {
    members: Mutex<HashMap<MemberId, Arc<MemberLive>>>,
    rules: Mutex<HashMap<RuleId, Arc<Counter>>>,
    groups: Mutex<Groups>,
    /// Rises with every change of memberships.
    version: AtomicU64,
    /// Multicast was sent to nodes whose memberships are not known here.
    wanting: AtomicBool,
    watcher: OnceLock<Watcher>,
    elsewhere: OnceLock<Elsewhere>,
    segments: OnceLock<Segments>,
    /// Limits the errors that the switch sends.
    pub(crate) errors: Bucket,
}

/// One member's use of its limits.
#[derive(Debug, Default)]
pub(crate) struct MemberLive {
    limit: Limit,
    pub(crate) bits: Bucket,
    pub(crate) packets: Bucket,
    pub(crate) multicast: Bucket,
    pub(crate) questions: Bucket,
    pub(crate) foreign: Bucket,
    /// What it sends to the name server over TCP.
    pub(crate) segments: Bucket,
}

impl Live {
    /// Calls `watcher` whenever [`groups`](Self::groups) or [`wants_groups`](Self::wants_groups) may have
    /// changed. It is called on data-path threads: it must only wake something else. The first stays.
    pub fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) {
        let _ = self.watcher.set(Box::new(watcher));
    }

    /// Has `elsewhere` asked what the network's name server does not know, where the policy allows
    /// it. It is called on data-path threads and says whether it will see to an answer; if it does
    /// not, the question is refused. The first stays.
    pub fn ask_names_of(&self, elsewhere: impl Fn(Asked) -> bool + Send + Sync + 'static) {
        let _ = self.elsewhere.set(Box::new(elsewhere));
    }

    /// Gives `server` what local members send to the name server over TCP, for a
    /// [`TcpNames`](crate::TcpNames). It is called on data-path threads and says whether it takes the packet;
    /// without it connections are reset. The first stays.
    pub fn serve_names_with(
        &self,
        server: impl Fn(MemberId, &[u8]) -> bool + Send + Sync + 'static,
    ) {
        let _ = self.segments.set(Box::new(server));
    }

    /// The multicast groups with listeners on this node: what to announce to nodes that ask.
    pub fn groups(&self) -> BTreeSet<IpAddr> {
        self.groups.lock().local_groups()
    }

    /// Takes what another node announced. It gets only these groups from now on.
    pub fn announce(&self, node: NodeId, groups: Vec<IpAddr>) {
        let changed = self.groups.lock().announce(node, groups);
        self.changed_if(changed, false);
    }

    /// Forgets what a node announced, when it cannot tell of changes any more. Until it announces
    /// again it gets every multicast packet.
    pub fn forget_node(&self, node: NodeId) {
        let changed = self.groups.lock().forget_node(node);
        self.changed_if(changed, false);
    }

    /// Whether [`announce`](Self::announce) has told about `node`.
    pub fn knows(&self, node: NodeId) -> bool {
        self.groups.lock().announced(node).is_some()
    }

    /// Whether a member here sends multicast to nodes whose memberships are not known: ask them.
    /// The answer is yes once for every time that it came up.
    pub fn wants_groups(&self) -> bool {
        self.wanting.swap(false, Ordering::Relaxed)
    }

    /// Forgets the memberships of a member whose port is gone.
    pub fn forget_member(&self, member: MemberId) {
        let changed = self.groups.lock().forget_member(member);
        self.changed_if(changed, true);
    }

    /// Ends memberships that nobody confirmed in time. Call it now and then.
    pub fn expire(&self, now: u64) {
        let changed = self.groups.lock().expire(now);
        self.changed_if(changed, true);
    }

    /// How often each rule of the policy decided, on this node.
    pub fn rule_hits(&self) -> Vec<(RuleId, u64)> {
        let rules = self.rules.lock();
        let mut hits: Vec<_> =
            rules.iter().map(|(id, hits)| (*id, hits.0.load(Ordering::Relaxed))).collect();
        hits.sort_unstable();
        hits
    }

    /// How many group memberships were refused, as too many or too frequent.
    pub fn refused_groups(&self) -> u64 {
        self.groups.lock().refused
    }

    pub(crate) fn report(&self, member: MemberId, reports: &[Membership], now: u64) {
        let mut changed = false;
        let mut groups = self.groups.lock();
        for report in reports {
            changed |= groups.report(member, *report, now);
        }
        drop(groups);
        self.changed_if(changed, true);
    }

    pub(crate) fn ask_elsewhere(&self, asked: &Asked) -> bool {
        self.elsewhere.get().is_some_and(|ask| ask(asked.clone()))
    }

    pub(crate) fn serve_names(&self, member: MemberId, packet: &[u8]) -> bool {
        self.segments.get().is_some_and(|serve| serve(member, packet))
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn with_groups<T>(&self, read: impl FnOnce(&Groups) -> T) -> T {
        read(&self.groups.lock())
    }

    pub(crate) fn want_groups(&self) {
        if !self.wanting.load(Ordering::Relaxed) && !self.wanting.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// What a member has used; from the start where its limit is another than before.
    pub(crate) fn member(&self, id: MemberId, limit: Limit) -> Arc<MemberLive> {
        let mut members = self.members.lock();
        let member = members.entry(id).or_default();
        if member.limit != limit {
            *member = Arc::new(MemberLive { limit, ..MemberLive::default() });
        }
        Arc::clone(member)
    }

    pub(crate) fn rule(&self, id: RuleId) -> Arc<Counter> {
        Arc::clone(self.rules.lock().entry(id).or_default())
    }

    /// Forgets members, nodes and rules that `roster` does not have.
    pub(crate) fn retain(&self, roster: &Roster, nodes: &[NodeId]) {
        self.members.lock().retain(|id, _| roster.member(*id).is_some());
        let rules = &roster.settings.policy.rules;
        self.rules.lock().retain(|id, _| rules.iter().any(|r| r.id == *id));
        let mut groups = self.groups.lock();
        groups.retain_members(|id| roster.member(id).is_some());
        let gone: Vec<_> =
            groups.nodes().filter(|node| nodes.binary_search(node).is_err()).collect();
        gone.into_iter().for_each(|node| {
            groups.forget_node(node);
        });
    }

    fn changed_if(&self, changed: bool, tell: bool) {
        if changed {
            self.version.fetch_add(1, Ordering::Release);
            if tell {
                self.wake();
            }
        }
    }

    fn wake(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher();
        }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("groups", &self.groups).finish_non_exhaustive()
    }
}
