//! Which packets to capture: a small part of the language of pcap filters.
//!
//! ```text
//! filter  = term { "or" term }         term = factor { ["and"] factor }
//! factor  = "not" factor | "(" filter ")" | test
//! test    = [dir] "host" ADDRESS | [dir] "net" CIDR | [dir] ["tcp"|"udp"] "port" N[-N]
//!         | "tcp" | "udp" | "icmp" | "ip" | "ip6" | "multicast" | "broadcast" | "proto" N
//! dir     = "src" | "dst"
//! ```

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

use crate::header::{Addresses, ICMP, ICMPV6, TCP, Transport, UDP};

/// How deep parentheses and negations may nest.
const MAX_DEPTH: usize = 32;

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the capture filter is not valid: {0} (such as `tcp port 80 and host 10.0.0.2`)")]
pub struct FilterError(String);

/// A test on packets. The empty text is the filter that takes everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Expression);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    All,
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Net(End, IpNet),
    Port(End, Option<u8>, u16, u16),
    Protocol(u8),
    Icmp,
    Version(u8),
    Multicast,
    Broadcast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
    Either,
}

impl Filter {
    /// Whether this IP packet is chosen.
    pub fn matches(&self, ip: &[u8]) -> bool {
        if self.0 == Expression::All {
            return true;
        }
        match (Addresses::of(ip), Transport::of(ip)) {
            (Some(addresses), Some(transport)) => self.0.matches(ip, addresses, &transport),
            _ => false,
        }
    }
}

impl Expression {
    fn matches(&self, ip: &[u8], addresses: Addresses, transport: &Transport) -> bool {
        let inner = |e: &Self| e.matches(ip, addresses, transport);
        match self {
            Self::All => true,
            Self::Not(e) => !inner(e),
            Self::And(a, b) => inner(a) && inner(b),
            Self::Or(a, b) => inner(a) || inner(b),
            Self::Net(end, net) => end
                .either(net.contains(&addresses.source()), net.contains(&addresses.destination())),
            Self::Port(end, protocol, first, last) => {
                let inside = |port: u16| (*first..=*last).contains(&port);
                protocol.is_none_or(|p| p == transport.protocol)
                    && transport.ports.is_some_and(|(s, d)| end.either(inside(s), inside(d)))
            }
            Self::Protocol(number) => transport.protocol == *number,
            Self::Icmp => matches!(transport.protocol, ICMP | ICMPV6),
            Self::Version(version) => ip.first().is_some_and(|b| b >> 4 == *version),
            Self::Multicast => addresses.is_multicast(),
            Self::Broadcast => addresses.destination() == IpAddr::from([255; 4]),
        }
    }
}

impl End {
    fn either(self, source: bool, destination: bool) -> bool {
        match self {
            Self::Source => source,
            Self::Destination => destination,
            Self::Either => source || destination,
        }
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").to_ascii_lowercase();
        let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0, depth: 0 };
        if parser.words.is_empty() {
            return Ok(Self(Expression::All));
        }
        let expression = parser.either()?;
        match parser.peek() {
            None => Ok(Self(expression)),
            Some(word) => Err(FilterError(format!("`{word}` was not expected"))),
        }
    }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn next(&mut self, what: &str) -> Result<&'a str, FilterError> {
        let word =
            self.peek().ok_or_else(|| FilterError(format!("{what} is missing at its end")))?;
        self.at += 1;
        Ok(word)
    }

    fn either(&mut self) -> Result<Expression, FilterError> {
        let mut left = self.both()?;
        while self.take("or") || self.take("||") {
            left = Expression::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Expression, FilterError> {
        let mut left = self.factor()?;
        while let Some(word) = self.peek() {
            if matches!(word, "or" | "||" | ")") {
                break;
            }
            let _ = self.take("and") || self.take("&&");
            left = Expression::And(Box::new(left), Box::new(self.factor()?));
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Expression, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(FilterError("it is nested too deeply".into()));
        }
        let expression = if self.take("not") || self.take("!") {
            Expression::Not(Box::new(self.factor()?))
        } else if self.take("(") {
            let inner = self.either()?;
            if !self.take(")") {
                return Err(FilterError("a closing parenthesis is missing".into()));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn test(&mut self) -> Result<Expression, FilterError> {
        let end = match self.peek() {
            Some("src") => End::Source,
            Some("dst") => End::Destination,
            _ => End::Either,
        };
        self.at += usize::from(end != End::Either);
        match self.next("a test")? {
            "host" => {
                let text = self.next("an address")?;
                let address: IpAddr =
                    text.parse().map_err(|_| FilterError(format!("`{text}` is no address")))?;
                Ok(Expression::Net(end, address.into()))
            }
            "net" => {
                let text = self.next("a prefix")?;
                let net =
                    text.parse().map_err(|_| FilterError(format!("`{text}` is no prefix")))?;
                Ok(Expression::Net(end, net))
            }
            "port" => self.port(end, None),
            "tcp" if self.take("port") => self.port(end, Some(TCP)),
            "udp" if self.take("port") => self.port(end, Some(UDP)),
            word if end != End::Either => {
                Err(FilterError(format!("`{word}` cannot follow src or dst")))
            }
            "tcp" => Ok(Expression::Protocol(TCP)),
            "udp" => Ok(Expression::Protocol(UDP)),
            "icmp" | "icmp6" => Ok(Expression::Icmp),
            "ip" => Ok(Expression::Version(4)),
            "ip6" => Ok(Expression::Version(6)),
            "multicast" => Ok(Expression::Multicast),
            "broadcast" => Ok(Expression::Broadcast),
            "proto" => {
                let text = self.next("a protocol number")?;
                let number = text.parse();
                number
                    .map(Expression::Protocol)
                    .map_err(|_| FilterError(format!("`{text}` is no protocol number")))
            }
            word => Err(FilterError(format!("`{word}` is not known"))),
        }
    }

    fn port(&mut self, end: End, protocol: Option<u8>) -> Result<Expression, FilterError> {
        let text = self.next("a port")?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => {
                Ok(Expression::Port(end, protocol, first, last))
            }
            _ => Err(FilterError(format!("`{text}` is no port or range of ports"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compose;

    fn udp(from: &str, from_port: u16, to: &str, to_port: u16) -> Vec<u8> {
        compose::udp((from.parse().unwrap(), from_port), (to.parse().unwrap(), to_port), b"x")
            .unwrap()
    }

    #[test]
    fn packets_are_chosen() {
        let packet = udp("10.0.0.2", 1000, "10.0.0.3", 53);
        let six = udp("fd00::2", 1000, "ff02::fb", 5353);
        for (text, four, other) in [
            ("", true, true),
            ("udp", true, true),
            ("tcp", false, false),
            ("host 10.0.0.3", true, false),
            ("src host 10.0.0.3", false, false),
            ("dst net 10.0.0.0/8", true, false),
            ("udp port 53", true, false),
            ("tcp port 53", false, false),
            ("port 50-60", true, false),
            ("dst port 5353", false, true),
            ("ip6 and multicast", false, true),
            ("not (udp and port 53)", false, true),
            ("tcp or icmp or proto 17", true, true),
            ("udp host 10.0.0.2", true, false),
        ] {
            let filter: Filter = text.parse().unwrap();
            assert_eq!((filter.matches(&packet), filter.matches(&six)), (four, other), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "host",
            "host x",
            "port 99999",
            "port 9-1",
            "(udp",
            "udp)",
            "and",
            "src udp",
            "fly",
            "net 10",
        ] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
        assert!("not ".repeat(1000).parse::<Filter>().is_err());
        assert!("(".repeat(100_000).parse::<Filter>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_and_any_bytes_are_survived(text in "[a-z0-9() .:/!&|-]{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(filter) = text.parse::<Filter>() {
                filter.matches(&bytes);
            }
        }
    }
}
