//! Where multicast and broadcast packets go, made for lookups.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use crate::{Live, MemberIx, MemberRow, NodeIx, Targets, verdict::TargetList};

/// The receivers of each group at one version of the memberships.
#[derive(Debug)]
pub(crate) struct Multicast {
    pub(crate) version: u64,
    /// Everybody.
    all: Fan,
    /// Groups that nobody here or elsewhere is known to listen to.
    others: Fan,
    groups: HashMap<IpAddr, Fan>,
    /// Whether some node's memberships are not known.
    pub(crate) unknown: bool,
}

/// Receivers of packets from here, and of those from elsewhere: these go no further.
#[derive(Debug, Clone, Default)]
struct Fan {
    out: Targets,
    inside: Targets,
}

impl Multicast {
    /// Out of date from the start: it is built when the first multicast packet comes.
    pub(crate) fn not_yet() -> Self {
        Self {
            version: u64::MAX,
            all: Fan::default(),
            others: Fan::default(),
            groups: HashMap::new(),
            unknown: false,
        }
    }

    pub(crate) fn build(rows: &[MemberRow], nodes: &[gvpn_model::NodeId], live: &Live) -> Self {
        let version = live.version();
        let place = |id| rows.binary_search_by_key(&id, |row| row.id).ok();
        let here = rows.iter().find(|row| row.local).map(|row| row.node_ix);
        let is_other = |ix: &NodeIx| Some(*ix) != here;
        let local = |ix: &MemberIx| rows[ix.0 as usize].local;
        let everybody = (0..rows.len() as u32).map(MemberIx).filter(local).collect();
        let others: Vec<_> = (0..nodes.len() as u32).map(NodeIx).filter(is_other).collect();
        live.with_groups(|groups| {
            let known = |ix: &NodeIx| groups.announced(nodes[ix.0 as usize]).is_some();
            let unknown: Vec<_> = others.iter().copied().filter(|ix| !known(ix)).collect();
            let mut lists: HashMap<IpAddr, (Vec<MemberIx>, Vec<NodeIx>)> = HashMap::new();
            for (id, group) in groups.local() {
                if let Some(at) = place(id).filter(|at| rows[*at].local) {
                    lists.entry(group).or_default().0.push(MemberIx(at as u32));
                }
            }
            for ix in others.iter().copied() {
                for group in groups.announced(nodes[ix.0 as usize]).into_iter().flatten() {
                    lists.entry(*group).or_default().1.push(ix);
                }
            }
            let fans = lists.into_iter().map(|(group, (members, mut to))| {
                to.extend(&unknown);
                (group, Fan::new(members, to))
            });
            Self {
                version,
                all: Fan::new(everybody, others.clone()),
                others: Fan::new(Vec::new(), unknown.clone()),
                groups: fans.collect(),
                unknown: !unknown.is_empty(),
            }
        })
    }

    /// The receivers of a packet to everybody.
    pub(crate) fn everybody(&self, from_here: bool) -> &Targets {
        self.all.pick(from_here)
    }

    /// The receivers of a packet to `group`.
    pub(crate) fn group(&self, group: IpAddr, from_here: bool) -> &Targets {
        let everybody = match group {
            IpAddr::V4(a) => a.octets() == [224, 0, 0, 1],
            IpAddr::V6(a) => a.segments() == [0xff02, 0, 0, 0, 0, 0, 0, 1],
        };
        let fan =
            if everybody { &self.all } else { self.groups.get(&group).unwrap_or(&self.others) };
        fan.pick(from_here)
    }
}

impl Fan {
    fn new(mut local: Vec<MemberIx>, nodes: Vec<NodeIx>) -> Self {
        local.sort_unstable();
        let inside = TargetList { local: local.clone(), nodes: Vec::new() };
        let out = TargetList { local, nodes };
        Self { out: Targets(Arc::new(out)), inside: Targets(Arc::new(inside)) }
    }

    fn pick(&self, from_here: bool) -> &Targets {
        if from_here { &self.out } else { &self.inside }
    }
}
