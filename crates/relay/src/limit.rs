//! What a client may ask of a relay.

use std::time::Instant;

/// What each client, and all together, may ask of a relay.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Clients registered at once.
    pub clients: usize,
    /// Records of nodes, of this relay's clients and of others in its fleet.
    pub records: usize,
    /// Requests of one client in a second, in the long run.
    pub requests_per_second: f64,
    /// Requests of one client at once.
    pub request_burst: f64,
    /// Bytes forwarded for one client in a second, each way.
    pub bytes_per_second: u64,
    /// Forwarding sessions of one client.
    pub sessions_per_client: usize,
    /// TLS streams of all clients.
    pub streams: usize,
    /// TLS streams of one client: a newer one takes the place of the oldest.
    pub streams_per_client: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 100_000,
            records: 500_000,
            requests_per_second: 20.0,
            request_burst: 200.0,
            bytes_per_second: 1 << 30,
            sessions_per_client: 4096,
            streams: 10_000,
            streams_per_client: 2,
        }
    }
}

/// A bucket of tokens.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    burst: f64,
    rate: f64,
    filled: Instant,
}

impl Bucket {
    pub(crate) fn new(now: Instant, rate: f64, burst: f64) -> Self {
        Self { tokens: burst, burst, rate, filled: now }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.rate).min(self.burst);
        self.filled = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 10.0, 5.0);
        let taken = (0..100).filter(|_| bucket.take(start)).count();
        assert_eq!(taken, 5);
        let taken =
            (1..=100).filter(|i| bucket.take(start + Duration::from_millis(10 * i))).count();
        assert!((9..=10).contains(&taken), "{taken}");
    }
}
