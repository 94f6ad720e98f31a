//! The times by which an agent acts.

use std::time::Duration;

/// The times by which an agent acts. The defaults are what nodes use.
#[derive(Debug, Clone)]
pub struct Timing {
    /// A peer that was sent to within this time is in use: whether it answers is looked after.
    pub in_use: Duration,
    /// A path is measured only while payload flows, which is until this time after it was sent.
    pub flowing: Duration,
    /// The search for the path MTU, which is many probes in a row, goes on until this time after.
    pub searching: Duration,
    /// A path that does not answer for this long is asked for a sign of life.
    pub quiet: Duration,
    /// A path that does not answer for this long is given up as soon as another one answers.
    pub suspect: Duration,
    /// A probe that is not answered within this time, or three round trips, is lost.
    pub lost: Duration,
    /// The first interval between probes of a candidate; it doubles with each.
    pub first_probe: Duration,
    /// Longest interval between probes of a candidate that would be better than the path in use.
    pub upgrade: Duration,
    /// Longest interval between probes of the others.
    pub standby: Duration,
    /// Longest interval between probes of all candidates while nothing answers.
    pub despair: Duration,
    /// How often the path MTU in use is confirmed.
    pub confirm_mtu: Duration,
    /// How often a larger path MTU is tried after the search has ended.
    pub raise_mtu: Duration,
    /// Ports are guessed once payload has flown through a relay for so long.
    pub guess_after: Duration,
    /// How long after ports were guessed in vain they are guessed again; doubles with each time.
    pub guess_again: Duration,
    /// The longest that this becomes.
    pub guess_longest: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            in_use: Duration::from_secs(10),
            flowing: Duration::from_millis(250),
            searching: Duration::from_secs(1),
            quiet: Duration::from_millis(400),
            suspect: Duration::from_millis(900),
            lost: Duration::from_millis(300),
            first_probe: Duration::from_millis(100),
            upgrade: Duration::from_secs(8),
            standby: Duration::from_secs(20),
            despair: Duration::from_secs(2),
            confirm_mtu: Duration::from_secs(5),
            raise_mtu: Duration::from_secs(600),
            guess_after: Duration::from_secs(2),
            guess_again: Duration::from_secs(60),
            guess_longest: Duration::from_secs(900),
        }
    }
}
