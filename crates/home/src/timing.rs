//! The times by which a node deals with its relays.

use std::time::Duration;

/// The times by which a node deals with its relays. The defaults are what nodes use.
#[derive(Debug, Clone)]
pub struct Timing {
    /// The first wait before a relay is called again; it doubles with each failure.
    pub first_retry: Duration,
    /// The longest.
    pub last_retry: Duration,
    /// A connection that lasted this long shows that the relay is well.
    pub lasting: Duration,
    /// How often something that claims to come from a relay that does not answer may have it called.
    pub hint: Duration,
    /// How often a relay is asked for a sign of life, and how long it may then be silent: often enough
    /// for a NAT.
    pub keep_alive: Duration,
    /// How long it may be silent if there is doubt; doubts within twice this are one.
    pub check: Duration,
    /// How often it is asked meanwhile.
    pub ask_again: Duration,
    /// For so long the round trip of a connection that is new, or in doubt, is measured by questions as
    /// frequent as [`ask_again`](Self::ask_again): an average of few answers may be far off.
    pub measure: Duration,
    /// How long it is not measured so again.
    pub measure_again: Duration,
    /// How long other relays wait to be told of one that has come.
    pub settle: Duration,
    /// How long a relay that is gone is still named.
    pub gone: Duration,
    /// How long a relay may take to say where a node is.
    pub answer: Duration,
    /// A relay that takes this long is in doubt, and others are tried.
    pub slow_answer: Duration,
    /// How long a look-up waits for a relay to be connected.
    pub connect: Duration,
    /// For so long what a look-up found is being tried.
    pub tried: Duration,
    /// Who looks for a node again this soon has not reached it by what was found: relays that forward
    /// to it may have lost sight of it, and the others that its record names are visited.
    pub again: Duration,
    /// When a session that the relay says it does not know is asked for anew.
    pub renew: Duration,
    /// A visit ends when it is of no use for this long.
    pub visit: Duration,
    /// So long a relay that was visited is called again when the connection ends.
    pub revisit: Duration,
    /// A timer that fires so much too late means that this node has stood still.
    pub late: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let check = Duration::from_secs(1);
        Self {
            first_retry: Duration::from_millis(100),
            last_retry: Duration::from_secs(5),
            lasting: Duration::from_secs(10),
            hint: Duration::from_secs(1),
            keep_alive: Duration::from_secs(8),
            check,
            ask_again: Duration::from_millis(250),
            measure: Duration::from_secs(5),
            measure_again: Duration::from_secs(30),
            settle: Duration::from_millis(200),
            gone: Duration::from_secs(3),
            answer: Duration::from_secs(3),
            slow_answer: Duration::from_secs(1),
            connect: Duration::from_secs(5),
            tried: Duration::from_millis(500),
            again: Duration::from_secs(3),
            renew: check + Duration::from_millis(200),
            visit: Duration::from_secs(300),
            revisit: Duration::from_secs(30),
            late: Duration::from_millis(500),
        }
    }
}
