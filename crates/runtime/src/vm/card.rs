//! The network cards of a machine: there from its start, given to networks as they are joined.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use gvpn_model::NetworkId;
use gvpn_vnic::{Nic, NicKind};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};

/// Cards beyond those of the networks known at the start.
const SPARE: usize = 4;

/// How a machine's cards are wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wiring {
    /// One frame a datagram.
    Dgram,
    /// Frames behind their length. A card has one life: half a frame may be left on its wire.
    Stream,
}

/// All cards of a machine.
#[derive(Debug)]
pub(super) struct Cards {
    wiring: Wiring,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Which card a network has.
    networks: BTreeMap<NetworkId, usize>,
    cards: Vec<Card>,
    /// Whether the machine runs, and no card can be added.
    wired: bool,
}

#[derive(Debug)]
struct Card {
    ours: OwnedFd,
    /// Until the machine has it.
    theirs: Option<OwnedFd>,
    used_up: bool,
}

impl Cards {
    pub(super) fn new(wiring: Wiring) -> Self {
        Self { wiring, state: Mutex::default() }
    }

    /// Gives a network a card: its number and the data path's end of it.
    pub(super) fn take(&self, network: NetworkId) -> Result<(usize, Nic), String> {
        let mut state = self.lock();
        let State { networks, cards, wired } = &mut *state;
        let is_free = |n: &usize| !cards[*n].used_up && !networks.values().any(|taken| taken == n);
        let number =
            match networks.get(&network).copied().or_else(|| (0..cards.len()).find(is_free)) {
                Some(number) => number,
                None if *wired => {
                    let count = cards.len();
                    return Err(format!("the machine has {count} network cards, and none is free"));
                }
                None => {
                    cards.push(Card::new(self.wiring).map_err(|e| e.to_string())?);
                    cards.len() - 1
                }
            };
        let card = &cards[number];
        let fd = card.ours.try_clone().map_err(|e| e.to_string())?;
        let kind = match self.wiring {
            Wiring::Dgram => NicKind::Dgram,
            Wiring::Stream => NicKind::Stream,
        };
        // What its last network has left.
        use std::os::fd::AsRawFd;
        let flags = MsgFlags::MSG_DONTWAIT;
        while self.wiring == Wiring::Dgram && recv(fd.as_raw_fd(), &mut [0], flags).is_ok() {}
        networks.insert(network, number);
        Ok((number, Nic::new(fd, kind)))
    }

    /// The card of a network.
    pub(super) fn of(&self, network: NetworkId) -> Option<usize> {
        self.lock().networks.get(&network).copied()
    }

    /// Takes a network's card away.
    pub(super) fn release(&self, network: NetworkId) {
        let mut state = self.lock();
        if let Some(number) = state.networks.remove(&network)
            && self.wiring == Wiring::Stream
            && state.wired
        {
            state.cards[number].used_up = true;
        }
    }

    /// The machine's ends of all cards, in their order, for a machine that is about to start.
    pub(super) fn wire(&self) -> io::Result<Vec<OwnedFd>> {
        let mut state = self.lock();
        for _ in 0..SPARE {
            state.cards.push(Card::new(self.wiring)?);
        }
        state.wired = true;
        let gone = || io::Error::other("the machine has been started before");
        state.cards.iter_mut().map(|card| card.theirs.take().ok_or_else(gone)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Card {
    fn new(wiring: Wiring) -> io::Result<Self> {
        let kind = match wiring {
            Wiring::Dgram => SockType::Datagram,
            Wiring::Stream => SockType::Stream,
        };
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        Ok(Self { ours, theirs: Some(theirs), used_up: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_given_back_where_their_wire_is_clean() {
        for wiring in [Wiring::Dgram, Wiring::Stream] {
            let cards = Cards::new(wiring);
            let networks: Vec<_> = (0..6).map(|_| NetworkId::random()).collect();
            assert_eq!(cards.take(networks[0]).unwrap().0, 0);
            assert_eq!(cards.take(networks[1]).unwrap().0, 1);
            assert_eq!(cards.wire().unwrap().len(), 2 + SPARE);
            cards.release(networks[0]);
            let next = cards.take(networks[2]).unwrap().0;
            assert_eq!(next, if wiring == Wiring::Dgram { 0 } else { 2 });
            assert_eq!(cards.of(networks[2]), Some(next));
            let rest = networks[3..].iter().filter(|n| cards.take(**n).is_ok()).count();
            assert_eq!(rest, 3);
        }
    }
}
