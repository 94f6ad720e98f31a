//! The name server over TCP, in virtual time, asked by a client that is made of bare segments.

mod world;

use gvpn_model::MemberId;
use gvpn_roster::{MemberEdit, Policy, Service};
use gvpn_switch::{Table, TcpNames, Verdict};
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use world::*;

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// One end of a connection, which sends and acknowledges and does nothing else.
struct Client {
    from: &'static str,
    to: &'static str,
    port: u16,
    next: u32,
    heard: u32,
    /// What the server has said.
    text: Vec<u8>,
    reset: bool,
    ended: bool,
}

struct Server {
    names: TcpNames,
    table: Table,
    now: u64,
}

impl Server {
    fn new(world: &World) -> Self {
        Self { names: TcpNames::new(7, 1300), table: world.table(node(1)), now: SECOND }
    }

    fn hear(&mut self, client: &Client, flags: u8, payload: &[u8]) {
        let packet = client.segment(flags, payload);
        let port = ix(&self.table, 1);
        assert_eq!(self.table.from_port(port, &packet), Verdict::Answer);
        self.names.handle_packet(self.now, &self.table, MemberId(1), &packet);
    }

    /// Lets time pass; the clients hear what is for them and acknowledge it.
    fn run(&mut self, clients: &mut [&mut Client], time: u64) {
        let end = self.now + time;
        while self.now < end {
            self.names.handle_timeout(self.now, &self.table);
            while let Some((member, packet)) = self.names.poll_transmit() {
                assert_eq!(member, MemberId(1));
                assert!(packet.len() <= 1300, "the network's MTU");
                assert_sums(&packet);
                for client in clients.iter_mut() {
                    if client.hear(&packet) {
                        self.hear(client, ACK, &[]);
                    }
                }
            }
            self.now += MS;
        }
    }
}

impl Client {
    fn connect(server: &mut Server, from: &'static str, to: &'static str, port: u16) -> Self {
        let mut client = Self {
            from,
            to,
            port,
            next: 1000,
            heard: 0,
            text: Vec::new(),
            reset: false,
            ended: false,
        };
        server.hear(&client, SYN, &[]);
        client.next += 1;
        server.run(&mut [&mut client], 10 * MS);
        client
    }

    fn segment(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut message = [self.port.to_be_bytes(), 53u16.to_be_bytes()].concat();
        message.extend(self.next.to_be_bytes());
        message.extend(self.heard.to_be_bytes());
        message.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        message.extend(payload);
        packet(self.from, self.to, 6, &message)
    }

    fn say(&mut self, server: &mut Server, bytes: &[u8]) {
        server.hear(self, ACK, bytes);
        self.next += bytes.len() as u32;
    }

    /// Takes a segment in; whether it wants to be acknowledged.
    fn hear(&mut self, packet: &[u8]) -> bool {
        let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let word = |i: usize| u32::from_be_bytes(packet[at + i..at + i + 4].try_into().unwrap());
        if packet[at + 2..at + 4] != self.port.to_be_bytes() {
            return false;
        }
        let (flags, data) = (packet[at + 13], at + usize::from(packet[at + 12] >> 4) * 4);
        if flags & RST != 0 {
            self.reset = true;
            return false;
        }
        if flags & SYN != 0 {
            self.heard = word(4) + 1;
            return true;
        }
        if word(4) != self.heard {
            return true;
        }
        self.text.extend(&packet[data..]);
        self.heard += (packet.len() - data) as u32;
        if flags & FIN != 0 {
            self.heard += 1;
            self.ended = true;
        }
        packet.len() > data || flags & FIN != 0
    }

    /// The whole answers so far.
    fn answers(&self) -> Vec<Message> {
        let (mut rest, mut found) = (&self.text[..], Vec::new());
        while let Some((length, more)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(bytes) = more.get(..length) else { break };
            found.push(Message::from_vec(bytes).unwrap());
            rest = &more[length..];
        }
        found
    }
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let bytes = message.to_vec().unwrap();
    [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()
}

#[test]
fn long_answers_come_whole_over_either_family() {
    let mut world = World::new();
    let services = (0..60).map(|n| Service { name: "job".into(), udp: false, port: n }).collect();
    world.edit(1, MemberEdit { services: Some(services), ..Default::default() });
    let mut server = Server::new(&world);
    for (from, to) in [("10.0.0.2", "10.0.0.254"), ("fd00::2", "fd00::fe")] {
        let mut client = Client::connect(&mut server, from, to, 4000);
        // Two questions in pieces that have nothing to do with their borders.
        let all = [question("_job._tcp.lab.vpn.", RecordType::SRV), question("db.", RecordType::A)];
        for piece in all.concat().chunks(7) {
            client.say(&mut server, piece);
        }
        server.run(&mut [&mut client], 200 * MS);
        let answers = client.answers();
        assert_eq!(answers.len(), 2, "{from}");
        assert_eq!(answers[0].answers.len(), 60);
        assert!(!answers[0].metadata.truncation);
        assert_eq!(answers[1].answers[0].data.to_string(), "10.0.0.3");
        // It ends when the client does, and nothing is kept.
        server.hear(&client, ACK | FIN, &[]);
        client.next += 1;
        server.run(&mut [&mut client], 200 * MS);
        assert!(client.ended && !client.reset);
    }
    server.run(&mut [], 30 * SECOND);
    assert!(server.names.is_idle());
    assert_eq!(server.names.poll_timeout(server.now), None);
}

#[test]
fn connections_are_few_and_short_of_time() {
    let mut server = Server::new(&World::new());
    let mut clients: Vec<_> =
        (0..6).map(|n| Client::connect(&mut server, "10.0.0.2", "10.0.0.254", 4000 + n)).collect();
    let connected = |client: &&Client| client.heard > 0;
    assert_eq!(clients.iter().filter(connected).count(), 4);
    // Another address has connections of its own.
    let other = Client::connect(&mut server, "fd00::2", "fd00::fe", 4000);
    assert!(other.heard > 0);
    let mut all: Vec<&mut Client> = clients.iter_mut().collect();
    server.run(&mut all, 11 * SECOND);
    assert!(clients.iter().filter(connected).all(|client| client.reset), "idle ones are reset");
    assert!(server.names.is_idle());
    let mut late = Client::connect(&mut server, "10.0.0.2", "10.0.0.254", 4100);
    late.say(&mut server, &question("web.", RecordType::A));
    server.run(&mut [&mut late], 100 * MS);
    assert_eq!(late.answers().len(), 1);
}

#[test]
fn rubbish_ends_its_connection() {
    let mut server = Server::new(&World::new());
    for rubbish in [&b"\xff\xffxxxx"[..], b"\0\x05hello", b"\0\0"] {
        let mut client = Client::connect(&mut server, "10.0.0.2", "10.0.0.254", 4000);
        client.say(&mut server, rubbish);
        server.run(&mut [&mut client], 100 * MS);
        assert!(client.reset && client.text.is_empty(), "{rubbish:?}");
    }
    // Segments of no connection are reset, and cost nothing.
    let stray = Client {
        from: "10.0.0.2",
        to: "10.0.0.254",
        port: 9,
        next: 5,
        heard: 5,
        text: Vec::new(),
        reset: false,
        ended: false,
    };
    server.hear(&stray, ACK, b"hello");
    assert!(server.names.is_idle());
}

#[test]
fn other_names_wait_for_an_answer_from_elsewhere() {
    let mut world = World::new();
    let mut server = Server::new(&world);
    let ask = question("example.org.", RecordType::A);
    let mut client = Client::connect(&mut server, "10.0.0.2", "10.0.0.254", 4000);
    client.say(&mut server, &ask);
    server.run(&mut [&mut client], 50 * MS);
    assert_eq!(client.answers()[0].metadata.response_code, ResponseCode::Refused);
    assert_eq!(server.names.poll_question(), None);
    world.policy(Policy { dns_forward: true, ..Policy::default() });
    server.table = server.table.rebuild(world.book.roster());
    client.say(&mut server, &[ask.clone(), question("web.", RecordType::A)].concat());
    server.run(&mut [&mut client], 50 * MS);
    let asked = server.names.poll_question().unwrap();
    assert_eq!(asked.message, ask[2..]);
    assert_eq!(client.answers().len(), 1, "in order");
    let mut answer = asked.message.clone();
    answer[2] |= 0x80;
    server.names.handle_answer(server.now, &server.table, asked.id, Some(&answer));
    server.run(&mut [&mut client], 50 * MS);
    assert_eq!(client.answers().len(), 3);
    assert_eq!(client.answers()[2].answers[0].data.to_string(), "10.0.0.2");
    // Nobody has an answer.
    client.say(&mut server, &ask);
    server.run(&mut [&mut client], 50 * MS);
    let asked = server.names.poll_question().unwrap();
    server.names.handle_answer(server.now, &server.table, asked.id, None);
    server.run(&mut [&mut client], 50 * MS);
    assert!(client.reset);
}
