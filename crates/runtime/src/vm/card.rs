//! The network cards of a machine: there from its start, given to networks as they are joined.

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

/// Cards beyond those of the networks known at the start.
const SPARE: usize = 4;

/// How a machine's cards are wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wiring {
    /// One frame a datagram.
    Dgram,
    /// Frames behind their length. A card has one life: half a frame may be left on its wire.
    Stream,
    /// Rings in the machine's memory. A card has one life, and somebody must serve it before the machine
    /// starts: cards for networks joined later are of datagrams.
    Vhost,
}

/// All cards of a machine.
#[derive(Debug)]
pub(super) struct Cards {
    wiring: Wiring,
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
    cards: Vec<Card>,
    /// Whether the machine runs, and no card can be added.
    wired: bool,
}

#[derive(Debug)]
struct Card {
    wiring: Wiring,
    /// The data path's end; of a card with one life until it has it.
    ours: Option<OwnedFd>,
    /// Until the machine has it.
    theirs: Option<Plug>,
}

/// The end of a card that a machine gets.
#[derive(Debug)]
pub(super) enum Plug {
    Dgram(OwnedFd),
    Stream(OwnedFd),
    /// The name of a socket in the machine's directory.
    Vhost(String),
}

impl Cards {
    pub(super) fn new(wiring: Wiring) -> Self {
        Self { wiring, place: OnceLock::new(), state: Mutex::default() }
    }

    /// Whether it is to be said where sockets with a name are.
    pub(super) fn need_a_place(&self) -> bool {
        self.wiring == Wiring::Vhost && self.place.get().is_none()
    }

    /// Says where sockets with a name are to be.
    pub(super) fn set_place(&self, place: Place) {
        let _ = self.place.set(place);
    }

    /// Gives a network a card: its number and the data path's end of it.
    pub(super) fn take(&self, network: NetworkId) -> Result<(usize, Nic), String> {
        let mut state = self.lock();
        let State { networks, cards, wired } = &mut *state;
        let is_free =
            |n: &usize| cards[*n].ours.is_some() && !networks.values().any(|taken| taken == n);
        let number =
            match networks.get(&network).copied().or_else(|| (0..cards.len()).find(is_free)) {
                Some(number) => number,
                None if *wired => {
                    let count = cards.len();
                    return Err(format!("the machine has {count} network cards, and none is free"));
                }
                None => {
                    cards.push(self.make(self.wiring, cards.len()).map_err(|e| e.to_string())?);
                    cards.len() - 1
                }
            };
        let nic = cards[number].nic().map_err(|e| e.to_string())?;
        networks.insert(network, number);
        Ok((number, nic))
    }

    /// The card of a network.
    pub(super) fn of(&self, network: NetworkId) -> Option<usize> {
        self.lock().networks.get(&network).copied()
    }

    /// Takes a network's card away.
    pub(super) fn release(&self, network: NetworkId) {
        let mut state = self.lock();
        if let Some(number) = state.networks.remove(&network)
            && !state.wired
            && state.cards[number].ours.is_none()
            && let Ok(card) = self.make(self.spare(), number)
        {
            // A machine would wait for whoever serves a card that is served no more.
            state.cards[number] = card;
        }
    }

    /// The machine's ends of all cards, in their order, for a machine that is about to start.
    pub(super) fn wire(&self) -> io::Result<Vec<Plug>> {
        let mut state = self.lock();
        for _ in 0..SPARE {
            let card = self.make(self.spare(), state.cards.len())?;
            state.cards.push(card);
        }
        state.wired = true;
        let gone = || io::Error::other("the machine has been started before");
        state.cards.iter_mut().map(|card| card.theirs.take().ok_or_else(gone)).collect()
    }

    /// The wiring of a card that nobody may serve yet when the machine starts.
    fn spare(&self) -> Wiring {
        if self.wiring == Wiring::Vhost { Wiring::Dgram } else { self.wiring }
    }

    fn make(&self, wiring: Wiring, number: usize) -> io::Result<Card> {
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
        Ok(Card { wiring, ours: Some(ours), theirs: Some(theirs) })
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

    #[test]
    fn cards_are_given_back_where_their_wire_is_clean() {
        for wiring in [Wiring::Dgram, Wiring::Stream, Wiring::Vhost] {
            let cards = Cards::new(wiring);
            let directory = tempfile::tempdir().unwrap();
            let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            cards.set_place(Place { directory: directory.path().to_owned(), owner });
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
