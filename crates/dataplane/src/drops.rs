//! Why packets are dropped.

macro_rules! drops {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why the data plane dropped a packet. The switch's own reasons are counted beside these.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Drop {
            $($(#[$doc])* $name,)*
        }

        impl Drop {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A stable name for metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

drops! {
    /// A datagram of no known kind.
    Unrecognised = "unrecognised",
    /// A data message for a lane that is not there.
    UnknownLane = "unknown_lane",
    /// A data message that does not authenticate.
    Forged = "forged",
    /// A data message seen before.
    Replayed = "replayed",
    /// A data message behind the replay window.
    TooOld = "too_old",
    /// An authentic message whose plaintext is no packet.
    Malformed = "malformed",
    /// A lane's network is not known, or the peer is no node of it.
    NotAMember = "not_a_member",
    /// A packet for a member whose vNIC is not attached.
    NoPort = "no_port",
    /// A packet held for a lane that did not come in time, or pushed out by newer ones.
    NoLane = "no_lane",
    /// A peer without a route.
    NoRoute = "no_route",
    /// A lane that has used up its counters.
    LaneExhausted = "lane_exhausted",
    /// The UDP socket takes no more for now.
    SocketFull = "socket_full",
    /// The system refused to send.
    SendFailed = "send_failed",
    /// A vNIC takes no more for now.
    PortFull = "port_full",
    /// A vNIC refused the packet.
    PortFailed = "port_failed",
    /// A packet larger than the path and not allowed to be fragmented; its sender was told.
    TooBig = "too_big",
    /// A fragment that does not fit the others, or whose others did not come in time.
    Fragment = "fragment",
    /// A packet for an Ethernet vNIC whose MAC address is not known yet.
    NoNeighbour = "no_neighbour",
    /// A frame from a vNIC that is larger than any may be, or cut short.
    BadFrame = "bad_frame",
    /// A relayed datagram for a session that is not there, or from elsewhere than its ends.
    UnknownSession = "unknown_session",
    /// A relayed datagram beyond what its sender may send.
    RelayLimit = "relay_limit",
    /// Control messages of a peer that sends far too many.
    ProbeFlood = "probe_flood",
    /// The queue towards the QUIC lane is full.
    DatagramQueueFull = "datagram_queue_full",
    /// A datagram that waited too long, or behind too many, for a carrier such as a TLS stream.
    CarrierFull = "carrier_full",
    /// A datagram for a carrier that has ended.
    CarrierGone = "carrier_gone",
}

pub(crate) const COUNT: usize = Drop::ALL.len();
