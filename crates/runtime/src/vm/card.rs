//! The network cards of a machine: those of the networks that it starts with, and those of networks joined later,
//! which QEMU takes while it runs, and of which user-mode Linux has some in reserve.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{PermissionsExt, chown},
            net::UnixListener,
        },
    },
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use gvpn_model::NetworkId;
use gvpn_vnic::{Nic, NicKind};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};

/// Cards in reserve of a machine that takes none later.
const SPARE: usize = 16;

/// How a machine's cards are wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wiring {
    /// One frame a datagram.
    Dgram,
    /// Frames behind their length. A card has one life: half a frame may be left on its wire.
    Stream,
    /// Rings in the machine's memory. A card has one life, and somebody must serve it before the machine has it.
    Vhost,
}

/// All cards of a machine.
#[derive(Debug)]
pub(super) struct Cards {
    wiring: Wiring,
    /// Whether a machine that runs takes further ones.
    pluggable: bool,
    /// Where sockets with a name are.
    place: OnceLock<Place>,
    state: Mutex<State>,
}

/// A directory that the machine's process may use.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    /// Whose the machine's process is.
    pub(super) owner: (u32, u32),
}

#[derive(Debug, Default)]
struct State {
    /// Which card a network has.
    networks: BTreeMap<NetworkId, usize>,
    cards: BTreeMap<usize, Card>,
    /// Whether the machine runs.
    wired: bool,
}

#[derive(Debug)]
struct Card {
    number: usize,
    wiring: Wiring,
    /// The data path's end; of a card with one life until it has it.
    ours: Option<OwnedFd>,
    /// Until the machine has it.
    theirs: Option<Plug>,
    /// Whether it was plugged into a machine that ran.
    later: bool,
}

/// The end of a card that a machine gets.
#[derive(Debug)]
pub(super) enum Plug {
    Dgram(OwnedFd),
    Stream(OwnedFd),
    /// The name of a socket in the machine's directory.
    Vhost(String),
}

/// The hardware address of a card that is plugged into a machine that runs, by which it is known there.
pub(super) fn mac(number: usize) -> String {
    format!("02:67:76:70:6e:{number:02x}")
}

impl Cards {
    pub(super) fn new(wiring: Wiring, pluggable: bool) -> Self {
        Self { wiring, pluggable, place: OnceLock::new(), state: Mutex::default() }
    }

    /// Whether they are rings in the machine's memory.
    pub(super) fn share_memory(&self) -> bool {
        self.wiring == Wiring::Vhost
    }

    /// Whether it is to be said where sockets with a name are.
    pub(super) fn need_a_place(&self) -> bool {
        self.wiring == Wiring::Vhost && self.place.get().is_none()
    }

    /// Says where sockets with a name are to be.
    pub(super) fn set_place(&self, place: Place) {
        let _ = self.place.set(place);
    }

    /// Gives a network a card; the data path's end of it.
    pub(super) fn take(&self, network: NetworkId) -> Result<Nic, String> {
        let mut state = self.lock();
        let State { networks, cards, wired } = &mut *state;
        let text = |e: io::Error| e.to_string();
        let is_free = |(n, card): &(&usize, &Card)| {
            card.ours.is_some() && !networks.values().any(|taken| taken == *n)
        };
        let known = networks.get(&network).copied();
        let number = match known.or_else(|| cards.iter().find(is_free).map(|(n, _)| *n)) {
            Some(number) => number,
            None if *wired && !self.pluggable => {
                let count = cards.len();
                return Err(format!("the machine has {count} network cards, and none is free"));
            }
            None => {
                let number = (0..).find(|n| !cards.contains_key(n)).unwrap_or_default();
                let card = self.make(number).map_err(text)?;
                cards.insert(number, Card { later: *wired, ..card });
                number
            }
        };
        let card = cards.get_mut(&number).ok_or("there is no such card")?;
        let nic = card.nic().map_err(text)?;
        networks.insert(network, number);
        Ok(nic)
    }

    /// A network's card that the machine, which runs, has not got yet.
    pub(super) fn unplugged(&self, network: NetworkId) -> Option<(usize, Plug)> {
        let mut state = self.lock();
        let number = *state.networks.get(&network)?;
        let plug = state.cards.get_mut(&number)?.theirs.take()?;
        Some((number, plug))
    }

    /// Forgets a card that the machine has let go of.
    pub(super) fn forget(&self, number: usize) {
        self.lock().cards.remove(&number);
    }

    /// The card of a network.
    pub(super) fn of(&self, network: NetworkId) -> Option<usize> {
        self.lock().networks.get(&network).copied()
    }

    /// Takes a network's card away; its number, if it can be pulled out of the machine.
    pub(super) fn release(&self, network: NetworkId) -> Option<usize> {
        let mut state = self.lock();
        let number = state.networks.remove(&network)?;
        if !state.wired {
            // A machine would wait for whoever serves a card that is served no more.
            state.cards.remove(&number);
            return None;
        }
        let card = state.cards.get_mut(&number)?;
        if card.later && card.theirs.is_some() {
            // It never got into the machine.
            state.cards.remove(&number);
            return None;
        }
        if card.later {
            // Whoever comes next gets another.
            card.ours = None;
        }
        card.later.then_some(number)
    }

    /// The machine's ends of all cards, in their order, for a machine that is about to start.
    pub(super) fn wire(&self) -> io::Result<Vec<Plug>> {
        let mut state = self.lock();
        let State { networks, cards, wired } = &mut *state;
        // The machine counts without gaps.
        for (number, (_, card)) in std::mem::take(cards).into_iter().enumerate() {
            networks.values_mut().filter(|taken| **taken == card.number).for_each(|n| *n = number);
            cards.insert(number, Card { number, ..card });
        }
        if !self.pluggable {
            for number in cards.len()..cards.len() + SPARE {
                cards.insert(number, self.make(number)?);
            }
        }
        *wired = true;
        let gone = || io::Error::other("the machine has been started before");
        cards.values_mut().map(|card| card.theirs.take().ok_or_else(gone)).collect()
    }

    fn make(&self, number: usize) -> io::Result<Card> {
        let wiring = self.wiring;
        let pair = |kind| socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = match wiring {
            Wiring::Dgram => pair(SockType::Datagram).map(|(o, t)| (o, Plug::Dgram(t)))?,
            Wiring::Stream => pair(SockType::Stream).map(|(o, t)| (o, Plug::Stream(t)))?,
            Wiring::Vhost => {
                let name = format!("card{number}");
                let place =
                    self.place.get().ok_or_else(|| io::Error::other("there is no place"))?;
                (place.listen(&name)?, Plug::Vhost(name))
            }
        };
        Ok(Card { number, wiring, ours: Some(ours), theirs: Some(theirs), later: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A socket that listens, for the machine's process alone.
    fn listen(&self, name: &str) -> io::Result<OwnedFd> {
        // By way of the descriptor, for a path may be longer than a socket's name.
        let directory = File::open(&self.directory)?;
        let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        // A card of that number may have been there before.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        chown(&path, Some(self.owner.0), Some(self.owner.1))?;
        Ok(listener.into())
    }
}

impl Card {
    /// The data path's end, for a network that takes the card.
    fn nic(&mut self) -> io::Result<Nic> {
        let used_up = || io::Error::other("the network card has been used before");
        let kind = match self.wiring {
            Wiring::Dgram => NicKind::Dgram,
            Wiring::Stream => NicKind::Stream,
            Wiring::Vhost => NicKind::VhostUser,
        };
        if self.wiring != Wiring::Dgram {
            return Ok(Nic::new(self.ours.take().ok_or_else(used_up)?, kind));
        }
        let fd = self.ours.as_ref().ok_or_else(used_up)?.try_clone()?;
        // What its last network has left.
        while recv(fd.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT).is_ok() {}
        Ok(Nic::new(fd, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(wiring: Wiring, pluggable: bool) -> (Cards, tempfile::TempDir) {
        let cards = Cards::new(wiring, pluggable);
        let directory = tempfile::tempdir().unwrap();
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        cards.set_place(Place { directory: directory.path().to_owned(), owner });
        (cards, directory)
    }

    #[test]
    fn networks_come_and_go_without_end() {
        for wiring in [Wiring::Dgram, Wiring::Stream, Wiring::Vhost] {
            let (cards, _directory) = cards(wiring, true);
            let networks: Vec<_> = (0..6).map(|_| NetworkId::random()).collect();
            for network in &networks[..3] {
                cards.take(*network).unwrap();
            }
            // The first leaves before the machine starts: the others move up.
            assert_eq!(cards.release(networks[0]), None);
            assert_eq!(cards.wire().unwrap().len(), 2);
            assert_eq!((cards.of(networks[1]), cards.of(networks[2])), (Some(0), Some(1)));
            assert!(cards.unplugged(networks[1]).is_none());
            for _ in 0..50 {
                cards.take(networks[3]).unwrap();
                assert_eq!(cards.unplugged(networks[3]).unwrap().0, 2);
                assert_eq!(cards.release(networks[3]), Some(2));
                cards.forget(2);
            }
            // One that never got in, and one that the machine does not let go of.
            cards.take(networks[4]).unwrap();
            assert_eq!(cards.release(networks[4]), None);
            cards.take(networks[4]).unwrap();
            cards.unplugged(networks[4]).unwrap();
            assert_eq!(cards.release(networks[4]), Some(2));
            cards.take(networks[5]).unwrap();
            assert_eq!(cards.of(networks[5]), Some(3));
            // One that was there from the start.
            assert_eq!(cards.release(networks[1]), None);
            cards.take(networks[4]).unwrap();
            assert_eq!(cards.of(networks[4]), Some(if wiring == Wiring::Dgram { 0 } else { 4 }));
        }
    }

    #[test]
    fn a_machine_that_takes_no_cards_later_has_some_in_reserve() {
        let (cards, _directory) = cards(Wiring::Dgram, false);
        let networks: Vec<_> = (0..SPARE + 2).map(|_| NetworkId::random()).collect();
        cards.take(networks[0]).unwrap();
        assert_eq!(cards.wire().unwrap().len(), 1 + SPARE);
        for _ in 0..50 {
            cards.take(networks[1]).unwrap();
            assert_eq!(cards.of(networks[1]), Some(1));
            assert_eq!(cards.release(networks[1]), None);
        }
        let taken = networks.iter().filter(|network| cards.take(**network).is_ok()).count();
        assert_eq!(taken, 1 + SPARE);
    }
}
