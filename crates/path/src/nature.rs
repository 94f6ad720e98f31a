//! What the NAT in front of a node does, as far as guessing of ports goes.

/// What the NAT in front of a node does, as far as guessing of ports goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Nature {
    /// Ports are not guessed: there is none, it lets ordinary punching through, or it is not known.
    #[default]
    Other,
    /// Everyone sees the node at the same address and port, and what comes from another port than was
    /// written to is not let in, as far as known.
    Strict,
    /// Each destination sees the node at another port ("symmetric").
    Random,
}

/// What an end does when ports are guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Writes to the other end from many sockets, each of which gets a port of its NAT.
    Opens,
    /// Writes to many ports of the other end's NAT.
    Sprays,
}

impl Nature {
    /// The number that stands for it between nodes.
    pub fn number(self) -> u8 {
        match self {
            Self::Other => 0,
            Self::Strict => 1,
            Self::Random => 2,
        }
    }

    /// What a number stands for; numbers that are not known yet for nothing that matters.
    pub fn of_number(number: u8) -> Self {
        match number {
            1 => Self::Strict,
            2 => Self::Random,
            _ => Self::Other,
        }
    }

    pub(crate) fn role_towards(self, peer: Self) -> Option<Role> {
        match (self, peer) {
            (Self::Random, Self::Strict) => Some(Role::Opens),
            (Self::Strict, Self::Random) => Some(Role::Sprays),
            _ => None,
        }
    }
}
