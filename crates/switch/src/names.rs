//! The name server at the gateway address (RFC 1034, 1035; SRV RFC 2782; EDNS RFC 6891).
//!
//! It is the authority for `NETWORK.vpn` and for the reverse names of the network's prefixes, and
//! knows the network's `hosts`. Every other question is refused, so that a resolver asks elsewhere,
//! or asked elsewhere from here, where the owner and the provider allow it.

use std::{collections::HashMap, net::IpAddr};

use gvpn_roster::Service;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, PTR, SOA, SRV},
    },
};

use crate::{MemberIx, MemberRow, Table};

/// How long an answer may be kept, in seconds: names follow a change at once.
const TTL: u32 = 1;
/// The largest reply without EDNS.
const PLAIN: usize = 512;
/// The largest reply with EDNS: it fits into every path's smallest MTU.
const EXTENDED: u16 = 1232;
/// The most records of one answer; more would hardly fit.
const MAX_RECORDS: usize = 1024;
/// The top-level domain of networks.
const TOP: &str = "vpn";
/// The name of the gateway itself.
const GATEWAY: &str = "gateway";

/// What a question comes to.
enum Found {
    /// These records; none for a name that has others.
    Records(Vec<RData>),
    /// No such name in this network.
    Nothing,
    /// Not this network's business.
    Refused,
}

/// A reply to a question.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    /// The name is none of this network's, nor of any other: somebody else may know it.
    pub(crate) foreign: bool,
}

/// The reply to the DNS message `question` in a datagram; `None` for what is no question at all.
pub(crate) fn answer(table: &Table, question: &[u8]) -> Option<Reply> {
    answer_within(table, question, None)
}

/// The same over TCP, where there is room.
pub(crate) fn answer_whole(table: &Table, question: &[u8]) -> Option<Reply> {
    answer_within(table, question, Some(u16::MAX.into()))
}

fn answer_within(table: &Table, question: &[u8], room: Option<usize>) -> Option<Reply> {
    let asked = Message::from_vec(question).ok()?;
    if asked.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
    reply.metadata.recursion_desired = asked.metadata.recursion_desired;
    reply.add_queries(asked.queries.iter().cloned());
    let limit = match &asked.edns {
        Some(edns) => {
            let mut ours = Edns::new();
            ours.set_max_payload(EXTENDED);
            reply.set_edns(ours);
            usize::from(edns.max_payload().clamp(PLAIN as u16, EXTENDED))
        }
        None => PLAIN,
    };
    let mut foreign = false;
    match (asked.metadata.op_code, asked.queries.as_slice()) {
        (OpCode::Query, [query]) => {
            fill(&mut reply, table, query);
            let refused = reply.metadata.response_code == ResponseCode::Refused;
            foreign = refused && query.query_class() == DNSClass::IN && !is_ours(query.name());
        }
        (OpCode::Query, _) => reply.metadata.response_code = ResponseCode::FormErr,
        _ => reply.metadata.response_code = ResponseCode::NotImp,
    }
    Some(Reply { bytes: fit(reply, room.unwrap_or(limit))?, foreign })
}

/// Whether a name is below the top-level domain of networks, of which nobody else knows anything.
fn is_ours(name: &Name) -> bool {
    name.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(TOP.as_bytes()))
}

/// The zone of a network.
pub(crate) fn zone(table: &Table) -> Option<Name> {
    Name::from_ascii(format!("{}.{TOP}.", table.dns_label())).ok()
}

fn fill(reply: &mut Message, table: &Table, query: &Query) {
    let found = if query.query_class() == DNSClass::IN {
        find(table, query.name(), query.query_type())
    } else {
        Found::Refused
    };
    match found {
        Found::Records(records) => {
            reply.metadata.authoritative = true;
            let name = query.name();
            let record = |data| Record::from_rdata(name.clone(), TTL, data);
            reply.add_answers(records.into_iter().take(MAX_RECORDS).map(record));
            if reply.answers.is_empty() {
                reply.add_authorities(authority(table));
            }
        }
        Found::Nothing => {
            reply.metadata.authoritative = true;
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authorities(authority(table));
        }
        Found::Refused => reply.metadata.response_code = ResponseCode::Refused,
    }
}

fn find(table: &Table, name: &Name, kind: RecordType) -> Found {
    if let Ok(net) = name.parse_arpa_name() {
        return reverse(table, net, kind);
    }
    let lower = name.to_lowercase();
    let labels: Vec<String> =
        lower.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    if let Some(ips) = table.settings.hosts.get(&labels.join(".")) {
        return addresses(ips, kind);
    }
    match labels.as_slice() {
        [inner @ .., network, TOP] if table.is_called(network) => inside(table, inner, kind),
        // A bare name, as a resolver without a search list asks it.
        [single] => match inside(table, &[*single], kind) {
            Found::Nothing => Found::Refused,
            found => found,
        },
        _ => Found::Refused,
    }
}

/// A name within the network's zone.
fn inside(table: &Table, labels: &[&str], kind: RecordType) -> Found {
    match labels {
        [] if kind == RecordType::SOA => Found::Records(authority(table).map(|r| r.data).collect()),
        [] => Found::Records(Vec::new()),
        [GATEWAY] => {
            let gateways: Vec<_> = table.settings.subnets.iter().map(|s| s.gateway).collect();
            addresses(&gateways, kind)
        }
        [service, transport] if service.starts_with('_') => {
            services(table, (0..).map(MemberIx).zip(&table.rows), service, transport, kind)
        }
        [service, transport, member] => match table.named(member) {
            Some(ix) => {
                let only = [(ix, &table.rows[ix.0 as usize])];
                services(table, only.into_iter(), service, transport, kind)
            }
            None => Found::Nothing,
        },
        [member] => match table.named(member) {
            Some(ix) => addresses(&table.rows[ix.0 as usize].ips, kind),
            None => Found::Nothing,
        },
        _ => Found::Nothing,
    }
}

fn addresses(ips: &[IpAddr], kind: RecordType) -> Found {
    let record = |ip: &IpAddr| match (ip, kind) {
        (IpAddr::V4(a), RecordType::A | RecordType::ANY) => Some(RData::A(A(*a))),
        (IpAddr::V6(a), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(*a))),
        _ => None,
    };
    Found::Records(ips.iter().filter_map(record).collect())
}

fn services<'a>(
    table: &Table,
    members: impl Iterator<Item = (MemberIx, &'a MemberRow)>,
    service: &str,
    transport: &str,
    kind: RecordType,
) -> Found {
    let (Some(service), Some(zone)) = (service.strip_prefix('_'), zone(table)) else {
        return Found::Nothing;
    };
    let udp = match transport {
        "_tcp" => false,
        "_udp" => true,
        _ => return Found::Nothing,
    };
    let wanted = |s: &&Service| s.name == service && s.udp == udp;
    let mut records = Vec::new();
    for (_, row) in members {
        let Ok(target) = zone.prepend_label(row.dns_label()) else { continue };
        let srv = |s: &Service| RData::SRV(SRV::new(0, 0, s.port, target.clone()));
        records.extend(row.services.iter().filter(wanted).map(srv));
    }
    match kind {
        _ if records.is_empty() => Found::Nothing,
        RecordType::SRV | RecordType::ANY => Found::Records(records),
        _ => Found::Records(Vec::new()),
    }
}

fn reverse(table: &Table, net: ipnet::IpNet, kind: RecordType) -> Found {
    let subnets = &table.settings.subnets;
    if !subnets.iter().any(|s| s.prefix.contains(&net)) {
        return Found::Refused;
    }
    if net.prefix_len() != net.max_prefix_len() {
        return Found::Records(Vec::new());
    }
    let label = match table.holder(net.addr()) {
        Some(crate::table::Holder::Member { ix, .. }) => table.rows[ix.0 as usize].dns_label(),
        Some(crate::table::Holder::Gateway) => GATEWAY.to_owned(),
        _ => return Found::Nothing,
    };
    let name = zone(table).and_then(|zone| zone.prepend_label(label).ok());
    match (name, kind) {
        (None, _) => Found::Nothing,
        (Some(name), RecordType::PTR | RecordType::ANY) => {
            Found::Records(vec![RData::PTR(PTR(name))])
        }
        _ => Found::Records(Vec::new()),
    }
}

/// The zone's SOA, which says how long "no such name" may be kept.
fn authority(table: &Table) -> impl Iterator<Item = Record> {
    let record = zone(table).and_then(|zone| {
        let server = zone.prepend_label(GATEWAY).ok()?;
        let person = zone.prepend_label("owner").ok()?;
        let soa = SOA::new(server, person, table.epoch as u32, 60, 60, 60, TTL);
        Some(Record::from_rdata(zone, TTL, RData::SOA(soa)))
    });
    record.into_iter()
}

/// The bytes of a reply of at most `limit`: records that do not fit are left out, and it says so.
fn fit(mut reply: Message, limit: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = reply.to_vec().ok()?;
        if bytes.len() <= limit {
            return Some(bytes);
        }
        reply.metadata.truncation = true;
        if reply.answers.is_empty() {
            reply.authorities.clear();
            reply.queries.clear();
            return reply.to_vec().ok().filter(|b| b.len() <= limit);
        }
        let keep = reply.answers.len() / 2;
        reply.answers.truncate(keep);
    }
}

impl Table {
    /// The label that names the network in DNS.
    pub fn dns_label(&self) -> String {
        self.settings.name.clone().unwrap_or_else(|| self.network.to_string())
    }

    fn is_called(&self, label: &str) -> bool {
        self.settings.name.as_deref() == Some(label) || self.network.to_string() == label
    }

    /// The member that goes by `label`: its name, or `member-ID`.
    fn named(&self, label: &str) -> Option<MemberIx> {
        let names = self.names.get_or_init(|| {
            let named = |(ix, row): (u32, &MemberRow)| Some((row.name.clone()?, MemberIx(ix)));
            (0..).zip(&self.rows).filter_map(named).collect::<HashMap<_, _>>()
        });
        names.get(label).copied().or_else(|| {
            let id = label.strip_prefix("member-")?.parse().ok()?;
            self.member_ix(gvpn_model::MemberId(id))
        })
    }
}

impl MemberRow {
    /// The label that names the member in DNS.
    pub fn dns_label(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None => format!("member-{}", self.id),
        }
    }
}
