//! The packets of a handshake, which are sent again until it is complete.
//!
//! QUIC doubles the time until it sends again with each loss (RFC 9002, 6.2.1), and a caller's time
//! goes on doubling until the handshake is complete: on a line that loses every fifth packet each
//! way, one call in ten took more than ten seconds. Duplicates harm nobody, so what was sent last is
//! sent again at a steady pace as well; seldom before it is known that somebody is there.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long until packets are sent again.
pub(crate) const AGAIN: Duration = Duration::from_millis(100);
/// The same, and how often, as long as the other was not heard: perhaps nobody is there.
const UNHEARD_AGAIN: Duration = Duration::from_millis(150);
const UNHEARD_TIMES: u32 = 3;
/// How many of the newest: all that a handshake takes in one direction.
const MOST: usize = 8;
/// How often, unless the other is heard again.
const TIMES: u32 = 20;
/// How often, and for how long, once the caller is through: on a bad line the other end may still
/// wait for its last packets, which QUIC repeats late.
const LAST_TIMES: u32 = 8;
pub(crate) const LAST: Duration = AGAIN.saturating_mul(LAST_TIMES + 1);
/// Set in the first byte of packets of a handshake (RFC 8999, 5.1).
const LONG: u8 = 0x80;

/// The newest packets that one end has sent in a handshake.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    packets: VecDeque<Vec<u8>>,
    heard: bool,
    /// When to send them again, and how often that was done since the other was heard.
    next: Option<Instant>,
    times: u32,
    /// Something had to be sent again.
    bad_line: bool,
    complete: bool,
}

impl Flight {
    /// A datagram was sent by QUIC.
    pub(crate) fn sent(&mut self, now: Instant, packet: &[u8]) {
        let of_handshake = packet.first().is_some_and(|first| first & LONG != 0);
        if self.complete && !(self.bad_line && of_handshake) {
            return;
        }
        self.next.get_or_insert(now + self.pace().0);
        if self.packets.len() == MOST {
            self.packets.pop_front();
        }
        self.packets.push_back(packet.to_vec());
    }

    /// A datagram came from the other end.
    pub(crate) fn heard(&mut self, now: Instant) {
        if self.complete {
            return;
        }
        self.times = 0;
        if !std::mem::replace(&mut self.heard, true) {
            self.next = Some(now + AGAIN);
        }
    }

    /// The caller's handshake is complete; returns whether the other end may still wait for packets.
    pub(crate) fn completed(&mut self) -> bool {
        self.complete = true;
        self.times = TIMES - LAST_TIMES;
        if !self.bad_line {
            self.packets.clear();
        }
        self.bad_line
    }

    /// What has been sent lately, the oldest first.
    pub(crate) fn packets(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.packets.iter().map(Vec::as_slice)
    }

    /// What is to be sent again now.
    pub(crate) fn again(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let (pace, times) = self.pace();
        if self.times >= times || self.next.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.times += 1;
        self.bad_line = true;
        self.next = Some(now + pace);
        self.packets.iter().cloned().collect()
    }

    fn pace(&self) -> (Duration, u32) {
        if self.heard { (AGAIN, TIMES) } else { (UNHEARD_AGAIN, UNHEARD_TIMES) }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

    use gvpn_identity::{
        Identity,
        tls::{self, TransportKey},
    };
    use gvpn_lab::{Direction, Fate, Weather};
    use quinn_proto::{
        ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, Event, ServerConfig,
    };

    use super::*;
    use crate::endpoint;

    const CALLER: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 1);
    const CALLED: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 2);
    const STEP: Duration = Duration::from_millis(1);

    /// A QUIC endpoint with one connection, and what it says again.
    struct End {
        addr: SocketAddr,
        quic: Endpoint,
        connection: Option<(ConnectionHandle, Connection)>,
        flight: Option<Flight>,
        line: Direction,
        connected: bool,
    }

    impl End {
        fn new(
            addr: SocketAddr,
            server: Option<Arc<ServerConfig>>,
            seed: u64,
            again: bool,
        ) -> Self {
            let config = endpoint::endpoint_config(&Identity::generate());
            let quic = Endpoint::new(Arc::new(config), server, false, Some([seed as u8; 32]));
            let flight = again.then(Flight::default);
            Self {
                addr,
                quic,
                connection: None,
                flight,
                line: Direction::new(seed),
                connected: false,
            }
        }

        /// Does what is due and returns what is sent.
        fn step(&mut self, now: Instant) -> Vec<Vec<u8>> {
            let mut out = Vec::new();
            let Some((handle, connection)) = &mut self.connection else { return out };
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now);
            }
            while let Some(event) = connection.poll() {
                self.connected |= matches!(event, Event::Connected);
            }
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = self.quic.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            let mut buffer = Vec::new();
            while connection.poll_transmit(now, 1, &mut buffer).is_some() {
                out.push(std::mem::take(&mut buffer));
            }
            let Some(flight) = &mut self.flight else { return out };
            if self.connected && !flight.complete {
                flight.completed();
            }
            out.iter().for_each(|packet| flight.sent(now, packet));
            out.extend(flight.again(now));
            out
        }

        fn receive(&mut self, now: Instant, from: SocketAddr, packet: &[u8]) {
            if let Some(flight) = &mut self.flight {
                flight.heard(now);
            }
            let mut buffer = Vec::new();
            match self.quic.handle(now, from, None, None, packet.into(), &mut buffer) {
                Some(DatagramEvent::NewConnection(incoming)) => {
                    let accepted = self.quic.accept(incoming, now, &mut buffer, None);
                    self.connection = Some(accepted.map_err(|e| e.cause).unwrap());
                }
                Some(DatagramEvent::ConnectionEvent(_, event)) => {
                    if let Some((_, connection)) = &mut self.connection {
                        connection.handle_event(event);
                    }
                }
                _ => {}
            }
        }
    }

    fn configs() -> (ClientConfig, Arc<ServerConfig>) {
        let key = TransportKey::generate(&Identity::generate()).unwrap();
        let transport = Arc::new(endpoint::transport().unwrap());
        let server = Arc::new(endpoint::server(&key, &transport).unwrap());
        (endpoint::client(&key, &transport).unwrap(), server)
    }

    /// How long a handshake takes until both ends are connected, and how much is sent.
    fn handshake(
        configs: &(ClientConfig, Arc<ServerConfig>),
        weather: &Weather,
        seed: u64,
        again: bool,
    ) -> (Duration, usize) {
        let start = Instant::now();
        let mut now = start;
        let mut ends = [
            End::new(CALLER, None, 2 * seed, again),
            End::new(CALLED, Some(Arc::clone(&configs.1)), 2 * seed + 1, again),
        ];
        let name = tls::server_name(None);
        let called = ends[0].quic.connect(now, configs.0.clone(), CALLED, &name);
        ends[0].connection = Some(called.unwrap());
        let mut on_their_way = BTreeMap::<(Instant, usize), (usize, Vec<u8>)>::new();
        let mut sent = 0;
        while !ends.iter().all(|end| end.connected) && now - start < Duration::from_secs(60) {
            while let Some(entry) = on_their_way.first_entry().filter(|e| e.key().0 <= now) {
                let (to, packet) = entry.remove();
                let from = ends[1 - to].addr;
                ends[to].receive(now, from, &packet);
            }
            for (from, end) in ends.iter_mut().enumerate() {
                for mut packet in end.step(now) {
                    sent += 1;
                    let fate = end.line.send(now, weather, &mut packet);
                    if let Fate::Arrives { at, .. } = fate {
                        on_their_way.insert((at, sent), (1 - from, packet));
                    }
                }
            }
            now += STEP;
        }
        (now - start, sent)
    }

    #[test]
    fn a_handshake_on_a_bad_line_does_not_wait_for_a_time_that_doubles() {
        let delay = Duration::from_millis(10);
        let uniform = Weather { delay, loss: 0.2, ..Weather::default() };
        let bursts = Weather { delay, loss: 0.25, burst: 4.0, ..Weather::default() };
        for weather in [uniform, bursts] {
            let configs = configs();
            let mut longest = [Duration::ZERO; 2];
            for seed in 0..200 {
                for again in [false, true] {
                    let (time, _) = handshake(&configs, &weather, seed, again);
                    longest[usize::from(again)] = longest[usize::from(again)].max(time);
                }
            }
            let [alone, with] = longest;
            assert!(with < Duration::from_millis(2500) && with < alone / 2, "{longest:?}");
        }
    }

    #[test]
    fn on_a_good_line_little_is_said_twice() {
        for (delay, more) in [(5, 0), (40, 0), (140, 12)] {
            let weather = Weather { delay: Duration::from_millis(delay), ..Weather::default() };
            let configs = configs();
            let (time, once) = handshake(&configs, &weather, 1, false);
            let (same, sent) = handshake(&configs, &weather, 1, true);
            assert!(time == same && sent <= once + more, "{once}, then {sent}");
        }
    }
}
