//! The messages of Golem's runtime protocol, as protocol buffers.
//!
//! Field numbers below 100 are Golem's. Those from 100 on are ours: they are sent only to a runtime
//! whose hello named the feature, and protocol buffers skip what they do not know.

use std::collections::HashMap;

/// The runtime follows changes of networks and names while it runs.
pub(super) const NETWORKS: &str = "networks/1";
/// The runtime takes an environment and a working directory with each program.
pub(super) const ENVIRONMENT: &str = "environment/1";

/// From the ExeUnit.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(oneof = "Order", tags = "2, 10, 11, 12, 30, 100, 101, 102")]
    pub(super) order: Option<Order>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Order {
    #[prost(message, tag = "2")]
    Hello(Hello),
    #[prost(message, tag = "10")]
    Run(Run),
    #[prost(message, tag = "11")]
    Kill(Kill),
    #[prost(message, tag = "12")]
    Shutdown(Nothing),
    #[prost(message, tag = "30")]
    CreateNetwork(CreateNetwork),
    #[prost(message, tag = "100")]
    UpdateNetwork(Network),
    #[prost(message, tag = "101")]
    LeaveNetwork(LeaveNetwork),
    #[prost(message, tag = "102")]
    Rename(Rename),
}

/// Both ways.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(string, repeated, tag = "100")]
    pub(super) features: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Run {
    #[prost(string, tag = "1")]
    pub(super) bin: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) args: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) work_dir: String,
    #[prost(message, optional, tag = "4")]
    pub(super) stdout: Option<Capture>,
    #[prost(message, optional, tag = "5")]
    pub(super) stderr: Option<Capture>,
    #[prost(map = "string, string", tag = "100")]
    pub(super) env: HashMap<String, String>,
}

/// What to do with a stream of a program: nothing set means to throw it away.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Capture {
    #[prost(uint32, optional, tag = "2")]
    pub(super) at_end: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Kill {
    #[prost(uint64, tag = "1")]
    pub(super) pid: u64,
    #[prost(int32, tag = "2")]
    pub(super) signal: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CreateNetwork {
    #[prost(message, repeated, tag = "1")]
    pub(super) networks: Vec<Network>,
    #[prost(map = "string, string", tag = "2")]
    pub(super) hosts: HashMap<String, String>,
    /// 0: a private network.
    #[prost(int32, tag = "3")]
    pub(super) interface: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Network {
    #[prost(string, tag = "1")]
    pub(super) addr: String,
    #[prost(string, tag = "2")]
    pub(super) gateway: String,
    #[prost(string, tag = "3")]
    pub(super) mask: String,
    #[prost(string, tag = "4")]
    pub(super) if_addr: String,
    #[prost(string, tag = "100")]
    pub(super) id: String,
    /// All addresses of both families, each with its prefix length.
    #[prost(string, repeated, tag = "101")]
    pub(super) addresses: Vec<String>,
    #[prost(string, repeated, tag = "102")]
    pub(super) routes: Vec<String>,
    #[prost(uint32, tag = "103")]
    pub(super) mtu: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LeaveNetwork {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Rename {
    #[prost(string, tag = "1")]
    pub(super) hostname: String,
    /// The text of `/etc/hosts`.
    #[prost(string, tag = "2")]
    pub(super) hosts: String,
    /// The text of `/etc/resolv.conf`.
    #[prost(string, tag = "3")]
    pub(super) resolv_conf: String,
}

/// From the runtime.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Response {
    /// Nobody asked; `id` has no meaning.
    #[prost(bool, tag = "1")]
    pub(super) event: bool,
    #[prost(uint64, tag = "2")]
    pub(super) id: u64,
    #[prost(oneof = "Answer", tags = "3, 4, 10, 11, 12, 20, 21, 30, 100, 101, 102")]
    pub(super) answer: Option<Answer>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Answer {
    #[prost(message, tag = "3")]
    Error(Refusal),
    #[prost(message, tag = "4")]
    Hello(Hello),
    #[prost(message, tag = "10")]
    Run(Started),
    #[prost(message, tag = "11")]
    Kill(Nothing),
    #[prost(message, tag = "12")]
    Shutdown(Nothing),
    #[prost(message, tag = "20")]
    Process(ProcessStatus),
    #[prost(message, tag = "21")]
    Runtime(RuntimeStatus),
    #[prost(message, tag = "30")]
    CreateNetwork(Endpoints),
    #[prost(message, tag = "100")]
    UpdateNetwork(Nothing),
    #[prost(message, tag = "101")]
    LeaveNetwork(Nothing),
    #[prost(message, tag = "102")]
    Rename(Nothing),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Refusal {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Started {
    #[prost(uint64, tag = "1")]
    pub(super) pid: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProcessStatus {
    #[prost(uint64, tag = "1")]
    pub(super) pid: u64,
    #[prost(bool, tag = "2")]
    pub(super) running: bool,
    #[prost(int32, tag = "3")]
    pub(super) return_code: i32,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) stderr: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RuntimeStatus {
    #[prost(message, optional, tag = "2")]
    pub(super) counter: Option<Counter>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Counter {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(double, tag = "2")]
    pub(super) value: f64,
}

/// Where the runtime's end of its network card is.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Endpoints {
    #[prost(oneof = "Endpoint", tags = "1, 2, 3, 4, 5")]
    pub(super) endpoint: Option<Endpoint>,
}

/// A socket that carries Ethernet frames.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub(super) enum Endpoint {
    /// Frames behind a length of two bytes in native order.
    #[prost(string, tag = "1")]
    UnixStream(String),
    #[prost(string, tag = "2")]
    UnixDatagram(String),
    /// A frame a datagram.
    #[prost(string, tag = "3")]
    UdpDatagram(String),
    #[prost(string, tag = "4")]
    TcpListener(String),
    /// Frames behind a length of four bytes, big-endian.
    #[prost(string, tag = "5")]
    TcpStream(String),
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let request = Request {
            id: 7,
            order: Some(Order::Run(Run { bin: "/bin/sh".into(), ..Run::default() })),
        };
        let bytes = request.encode_length_delimited_to_vec();
        assert_eq!(bytes, b"\x0d\x08\x07\x52\x09\x0a\x07/bin/sh");
        let answer = Response::decode(&b"\x10\x07\xf2\x01\x09\x1a\x07127.0:1"[..]).unwrap();
        let endpoint = Some(Endpoint::UdpDatagram("127.0:1".into()));
        assert_eq!(answer.answer, Some(Answer::CreateNetwork(Endpoints { endpoint })));
        // A field that nobody knows does no harm.
        let hello = Response::decode(&b"\x10\x01\x22\x07\x0a\x011\xa2\x1f\x01x"[..]).unwrap();
        assert!(matches!(hello.answer, Some(Answer::Hello(hello)) if hello.version == "1"));
    }
}
