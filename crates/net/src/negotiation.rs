//! Agreement on the lanes of one connection. Sans-IO: messages in, messages and actions out.
//!
//! Each end tells the index under which it will open ([`Control::Lane`]), of its own accord or in
//! answer to the other. Whoever has told and been told adds the lane and says so
//! ([`Control::Ready`]); whoever is told so seals with it from then on. No packet is sealed for a
//! lane that the other end does not open yet.

use std::collections::HashMap;

use gvpn_model::NetworkId;

use crate::control::Control;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this.
    Send(Control),
    /// Open with this lane's keys.
    Add { network: Option<NetworkId>, local: u32, remote: u32 },
    /// Seal with this lane's keys.
    Activate { network: Option<NetworkId>, local: u32 },
    /// The peer will not have this lane.
    Refused { network: NetworkId },
}

#[derive(Debug, Default)]
struct Lane {
    local: Option<u32>,
    remote: Option<u32>,
    active: bool,
}

/// The lanes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Negotiation {
    lanes: HashMap<Option<NetworkId>, Lane>,
}

impl Negotiation {
    /// This end wants a lane; `index` makes a fresh index.
    pub(crate) fn want(
        &mut self,
        network: Option<NetworkId>,
        index: impl FnOnce() -> u32,
    ) -> Vec<Action> {
        let lane = self.lanes.entry(network).or_default();
        if lane.local.is_some() {
            return vec![];
        }
        let index = index();
        lane.local = Some(index);
        vec![Action::Send(Control::Lane { network, index })]
    }

    /// The peer said something. `allowed` says whether it may have a lane of a network.
    pub(crate) fn handle(
        &mut self,
        message: &Control,
        allowed: impl FnOnce(NetworkId) -> bool,
        index: impl FnOnce() -> u32,
    ) -> Vec<Action> {
        match *message {
            Control::Lane { network, index: remote } => {
                if let Some(network) = network.filter(|n| !allowed(*n)) {
                    return vec![Action::Send(Control::Refuse { network })];
                }
                self.told(network, remote, index)
            }
            Control::Ready { network } => match self.lanes.get_mut(&network) {
                Some(Lane { local: Some(local), remote: Some(_), active }) if !*active => {
                    *active = true;
                    vec![Action::Activate { network, local: *local }]
                }
                _ => vec![],
            },
            Control::Refuse { network } => match self.lanes.get(&Some(network)) {
                Some(Lane { remote: None, .. }) => {
                    self.lanes.remove(&Some(network));
                    vec![Action::Refused { network }]
                }
                _ => vec![],
            },
            Control::Hello { .. }
            | Control::Punch { .. }
            | Control::Nature { .. }
            | Control::Guess => vec![],
        }
    }

    /// The network is no longer shared: its lane is gone.
    pub(crate) fn forget(&mut self, network: NetworkId) {
        self.lanes.remove(&Some(network));
    }

    #[cfg(test)]
    fn has(&self, network: Option<NetworkId>) -> bool {
        self.lanes.contains_key(&network)
    }

    fn told(
        &mut self,
        network: Option<NetworkId>,
        remote: u32,
        index: impl FnOnce() -> u32,
    ) -> Vec<Action> {
        let lane = self.lanes.entry(network).or_default();
        if lane.remote.is_some() {
            // One lane per connection and network: a second offer is the peer's mistake.
            return vec![];
        }
        lane.remote = Some(remote);
        let mut actions = vec![];
        let local = match lane.local {
            Some(local) => local,
            None => {
                let local = index();
                lane.local = Some(local);
                actions.push(Action::Send(Control::Lane { network, index: local }));
                local
            }
        };
        actions.push(Action::Add { network, local, remote });
        actions.push(Action::Send(Control::Ready { network }));
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> NetworkId {
        NetworkId::from_bytes([1; 16])
    }

    struct End {
        negotiation: Negotiation,
        index: u32,
        opens: bool,
        seals: bool,
        refused: bool,
        allows: bool,
    }

    impl End {
        fn new(index: u32) -> Self {
            Self {
                negotiation: Negotiation::default(),
                index,
                opens: false,
                seals: false,
                refused: false,
                allows: true,
            }
        }

        fn act(&mut self, actions: Vec<Action>, out: &mut Vec<Control>) {
            for action in actions {
                match action {
                    Action::Send(message) => out.push(message),
                    Action::Add { local, .. } => {
                        assert_eq!(local, self.index);
                        self.opens = true;
                    }
                    Action::Activate { .. } => self.seals = true,
                    Action::Refused { .. } => self.refused = true,
                }
            }
        }
    }

    /// Runs both ends until nothing is left to say; after each step, nobody seals for an end that
    /// does not open. `wants` says who begins; every interleaving of deliveries is tried.
    fn run(wants: [bool; 2], schedule: u32) -> [End; 2] {
        let mut ends = [End::new(10), End::new(20)];
        let mut wires = [vec![], vec![]];
        for i in 0..2 {
            if wants[i] {
                let index = ends[i].index;
                let actions = ends[i].negotiation.want(Some(network()), || index);
                ends[i].act(actions, &mut wires[i]);
            }
        }
        let mut step = 0;
        while wires.iter().any(|w| !w.is_empty()) {
            let from = match wires.each_ref().map(Vec::is_empty) {
                [true, _] => 1,
                [_, true] => 0,
                _ => (schedule >> (step % 32) & 1) as usize,
            };
            step += 1;
            let message = wires[from].remove(0);
            let to = 1 - from;
            let (index, allows) = (ends[to].index, ends[to].allows);
            let actions = ends[to].negotiation.handle(&message, |_| allows, || index);
            ends[to].act(actions, &mut wires[to]);
            for i in 0..2 {
                assert!(!ends[i].seals || ends[1 - i].opens, "sealed too early");
            }
            assert!(step < 50);
        }
        ends
    }

    #[test]
    fn both_ends_agree_whoever_begins() {
        for wants in [[true, false], [false, true], [true, true]] {
            for schedule in 0..256 {
                let ends = run(wants, schedule);
                assert!(ends.iter().all(|e| e.opens && e.seals), "{wants:?} {schedule}");
            }
        }
    }

    #[test]
    fn who_does_not_belong_to_the_network_is_refused_and_may_ask_again() {
        let mut a = Negotiation::default();
        let mut b = Negotiation::default();
        let offer = a.want(Some(network()), || 1);
        let Action::Send(offer) = &offer[0] else { panic!("{offer:?}") };
        let answer = b.handle(offer, |_| false, || 2);
        assert_eq!(answer, [Action::Send(Control::Refuse { network: network() })]);
        assert!(!b.has(Some(network())));
        let Action::Send(refusal) = &answer[0] else { panic!("{answer:?}") };
        let refused = a.handle(refusal, |_| true, || 3);
        assert_eq!(refused, [Action::Refused { network: network() }]);
        assert_eq!(a.want(Some(network()), || 4).len(), 1);
    }

    #[test]
    fn messages_out_of_place_do_nothing() {
        let mut a = Negotiation::default();
        let network = Some(network());
        assert_eq!(a.handle(&Control::Ready { network }, |_| true, || 1), []);
        a.handle(&Control::Lane { network, index: 5 }, |_| true, || 1);
        assert_eq!(a.handle(&Control::Lane { network, index: 6 }, |_| true, || 2), []);
    }
}
