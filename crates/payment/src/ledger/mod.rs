//! The ledger of one node: its allocations, and the documents it issued and received.

mod allocations;
mod exchange;
mod payee;
mod payer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use gvpn_model::{EventLog, LongPoll, NodeId};
use serde::{Deserialize, Serialize};

use crate::{
    Allocation, Amount, Change, Document, DocumentEvent, Driver, Kind, Payment, PaymentMessage,
    Transmit,
};

const KEPT_EVENTS: usize = 10_000;
/// Most documents of one agreement.
pub const MAX_DOCUMENTS: usize = 10_000;
/// Most allocations at a time.
pub const MAX_ALLOCATIONS: usize = 10_000;

/// Why the ledger refuses a request of a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaymentError {
    /// No such allocation or document.
    #[error("{what} `{id}` does not exist, or is no longer there")]
    Unknown {
        /// What was asked for.
        what: &'static str,
        /// By which id.
        id: String,
    },
    /// The request makes no sense as it stands.
    #[error("{0}")]
    Invalid(String),
    /// The state of the thing does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// A limit is reached.
    #[error("{0}")]
    TooMany(String),
}

/// This node's part in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It pays: the requestor.
    Payer,
    /// It is paid: the provider.
    Payee,
}

/// What the ledger has to know about an agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    /// Its id.
    pub agreement_id: String,
    /// Who pays.
    pub requestor: NodeId,
    /// Who is paid.
    pub provider: NodeId,
    /// Driver, network and token.
    pub platform: String,
    /// Where the money comes from.
    pub payer_addr: String,
    /// Where it goes.
    pub payee_addr: String,
    /// The client session that made the agreement.
    pub session: Option<String>,
}

/// Which events a client wants. Event types are matched by name; the defaults are what Golem's
/// clients expect when they do not say: what the other side did.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Later than this.
    pub after: Option<DateTime<Utc>>,
    /// At most so many.
    pub max: usize,
    /// Of this client session only.
    pub session: Option<String>,
    /// Event types about documents that this node pays.
    pub payer: Option<Vec<String>>,
    /// Event types about documents that this node is paid for.
    pub payee: Option<Vec<String>>,
}

/// A document and what this node knows about it. Kept as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The document.
    pub document: Document,
    /// This node's part.
    pub role: Role,
    /// The client session that made the agreement.
    pub session: Option<String>,
    /// Out of which allocation it is paid.
    pub allocation: Option<String>,
    /// Messages about it that the other side has not acknowledged.
    pub unsent: Vec<PaymentMessage>,
}

/// What has to survive a restart. A record replaces earlier ones of the same key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// An allocation.
    Allocation(Allocation),
    /// An allocation is gone.
    AllocationGone(String),
    /// A document.
    Document(Box<Entry>),
    /// A payment.
    Payment(Payment),
    /// An event.
    Event {
        /// When.
        date: DateTime<Utc>,
        /// About which kind of document.
        kind: Kind,
        /// About which document.
        id: String,
        /// What happened.
        change: Change,
    },
}

impl Record {
    /// The key under which the record is kept.
    pub fn key(&self) -> String {
        match self {
            Self::Allocation(a) => format!("allocation/{}", a.allocation_id),
            Self::AllocationGone(id) => format!("allocation/{id}"),
            Self::Document(entry) => format!("document/{}", entry.document.id()),
            Self::Payment(p) => format!("payment/{}", p.payment_id),
            Self::Event { date, .. } => format!("event/{}", date.timestamp_micros()),
        }
    }

    /// Whether the record says that its key can be deleted.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::AllocationGone(_))
    }
}

/// The ledger of one node.
///
/// Calls take the present time; what they cause is fetched with [`poll_transmit`](Self::poll_transmit)
/// and [`poll_record`](Self::poll_record).
pub struct Ledger {
    me: NodeId,
    driver: Box<dyn Driver>,
    ids: Box<dyn FnMut() -> [u8; 16] + Send>,
    allocations: BTreeMap<String, Allocation>,
    entries: BTreeMap<(Kind, String), Entry>,
    /// What has been accepted so far: by agreement, and by activity where it was for one.
    accepted: BTreeMap<(String, Option<String>), Amount>,
    payments: EventLog<Payment>,
    events: EventLog<(Kind, String, Change)>,
    transmits: VecDeque<Transmit>,
    records: VecDeque<Record>,
}

impl Ledger {
    /// An empty ledger of `me`. `ids` gives random bytes for identifiers.
    pub fn new(
        me: NodeId,
        driver: Box<dyn Driver>,
        ids: impl FnMut() -> [u8; 16] + Send + 'static,
    ) -> Self {
        Self {
            me,
            driver,
            ids: Box::new(ids),
            allocations: BTreeMap::new(),
            entries: BTreeMap::new(),
            accepted: BTreeMap::new(),
            payments: EventLog::new(KEPT_EVENTS),
            events: EventLog::new(KEPT_EVENTS),
            transmits: VecDeque::new(),
            records: VecDeque::new(),
        }
    }

    /// Takes back what was kept before a restart, and sends again what was not acknowledged.
    pub fn restore(&mut self, records: impl IntoIterator<Item = Record>) {
        let mut events = Vec::new();
        let mut payments = Vec::new();
        for record in records {
            match record {
                Record::Allocation(a) => {
                    self.allocations.insert(a.allocation_id.clone(), a);
                }
                Record::AllocationGone(_) => {}
                Record::Document(entry) => self.restore_entry(*entry),
                Record::Payment(p) => payments.push(p),
                Record::Event { date, kind, id, change } => events.push((date, (kind, id, change))),
            }
        }
        events.sort_by_key(|(date, _)| *date);
        payments.sort_by_key(|p| p.timestamp);
        events.into_iter().for_each(|(date, event)| self.events.restore(date, event));
        payments.into_iter().for_each(|p| self.payments.restore(p.timestamp, p));
    }

    /// The next message to send. It is to be sent until it is acknowledged, then
    /// [`delivered`](Self::delivered).
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next record to keep.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// A message has reached the other side.
    pub fn delivered(&mut self, message: &PaymentMessage) {
        let key = message.subject();
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.unsent.retain(|m| m != message);
            self.keep(&key);
        }
    }

    /// One document of either side.
    ///
    /// # Errors
    /// [`PaymentError::Unknown`].
    pub fn document(&self, kind: Kind, id: &str) -> Result<&Document, PaymentError> {
        Ok(&self.entry(kind, id)?.document)
    }

    /// Documents of a kind written later than `after`, oldest first.
    pub fn documents(&self, kind: Kind, after: Option<DateTime<Utc>>, max: usize) -> Vec<Document> {
        let mut found: Vec<_> = self
            .entries
            .iter()
            .filter(|((k, _), e)| *k == kind && after.is_none_or(|a| e.document.timestamp() > a))
            .map(|(_, e)| e.document.clone())
            .collect();
        found.sort_by_key(Document::timestamp);
        found.truncate(max);
        found
    }

    /// Events about documents of a kind, for a client that waits until `deadline`.
    pub fn events(
        &self,
        now: DateTime<Utc>,
        kind: Kind,
        filter: &EventFilter,
        deadline: DateTime<Utc>,
    ) -> LongPoll<DocumentEvent> {
        let events = self
            .events
            .after(filter.after, filter.max, |(k, id, change)| {
                *k == kind && self.wanted(filter, kind, id, change)
            })
            .map(|(date, (kind, id, change))| DocumentEvent {
                date,
                kind: *kind,
                id: id.clone(),
                change: change.clone(),
            })
            .collect();
        LongPoll::decide(events, now, deadline)
    }

    /// Payments made or received later than `after`, for a client that waits until `deadline`.
    pub fn payments(
        &self,
        now: DateTime<Utc>,
        after: Option<DateTime<Utc>>,
        max: usize,
        deadline: DateTime<Utc>,
    ) -> LongPoll<Payment> {
        let found = self.payments.after(after, max, |_| true).map(|(_, p)| p.clone()).collect();
        LongPoll::decide(found, now, deadline)
    }

    /// Payments for one document.
    ///
    /// # Errors
    /// [`PaymentError::Unknown`].
    pub fn payments_for(&self, kind: Kind, id: &str) -> Result<Vec<Payment>, PaymentError> {
        let document = self.document(kind, id)?;
        let concerns = |p: &Payment| match document {
            Document::Invoice(d) => {
                p.agreement_payments.iter().any(|a| a.agreement_id == d.agreement_id)
            }
            Document::DebitNote(d) => {
                p.activity_payments.iter().any(|a| a.activity_id == d.activity_id)
            }
        };
        let found = self.payments.after(None, usize::MAX, concerns);
        Ok(found.map(|(_, p)| p.clone()).collect())
    }

    /// One payment.
    ///
    /// # Errors
    /// [`PaymentError::Unknown`].
    pub fn payment(&self, id: &str) -> Result<Payment, PaymentError> {
        let mut found = self.payments.after(None, 1, |p| p.payment_id == id);
        found.next().map(|(_, p)| p.clone()).ok_or_else(|| unknown("payment", id))
    }

    fn wanted(&self, filter: &EventFilter, kind: Kind, id: &str, change: &Change) -> bool {
        let Ok(entry) = self.entry(kind, id) else { return false };
        if filter.session.is_some() && filter.session != entry.session {
            return false;
        }
        let (named, by_other) = match entry.role {
            Role::Payer => (&filter.payer, matches!(change, Change::Received | Change::Cancelled)),
            Role::Payee => (&filter.payee, !matches!(change, Change::Received | Change::Cancelled)),
        };
        match named {
            Some(types) => types.iter().any(|t| *t == change.event_type(kind)),
            None => by_other,
        }
    }

    fn entry(&self, kind: Kind, id: &str) -> Result<&Entry, PaymentError> {
        let what = match kind {
            Kind::DebitNote => "debit note",
            Kind::Invoice => "invoice",
        };
        self.entries.get(&(kind, id.to_owned())).ok_or_else(|| unknown(what, id))
    }

    fn own(&self, role: Role, kind: Kind, id: &str) -> Result<&Entry, PaymentError> {
        let entry = self.entry(kind, id)?;
        if entry.role == role {
            return Ok(entry);
        }
        Err(PaymentError::Invalid(match role {
            Role::Payer => format!("`{id}` is this node's own: only who pays can do that"),
            Role::Payee => format!("`{id}` is another node's: only who is paid can do that"),
        }))
    }

    fn restore_entry(&mut self, entry: Entry) {
        for message in &entry.unsent {
            let to = entry.other(self.me);
            self.transmits.push_back(Transmit { to, message: message.clone() });
        }
        if matches!(
            entry.document.status(),
            crate::DocumentStatus::Accepted | crate::DocumentStatus::Settled
        ) {
            self.count_accepted(&entry.document);
        }
        let key = (entry.document.kind(), entry.document.id().to_owned());
        self.entries.insert(key, entry);
    }

    fn change_entry(&mut self, key: &(Kind, String), change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(key) {
            change(entry);
            self.keep(key);
        }
    }

    fn tell(&mut self, key: &(Kind, String), message: PaymentMessage) {
        let me = self.me;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.unsent.push(message.clone());
            let to = entry.other(me);
            self.transmits.push_back(Transmit { to, message });
            self.keep(key);
        }
    }

    fn keep(&mut self, key: &(Kind, String)) {
        if let Some(entry) = self.entries.get(key) {
            self.records.push_back(Record::Document(Box::new(entry.clone())));
        }
    }

    fn log(&mut self, now: DateTime<Utc>, key: &(Kind, String), change: Change) {
        let (kind, id) = key.clone();
        let date = self.events.push(now, (kind, id.clone(), change.clone()));
        self.records.push_back(Record::Event { date, kind, id, change });
    }

    fn new_id(&mut self) -> String {
        let b = (self.ids)();
        let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }
}

impl Entry {
    fn other(&self, me: NodeId) -> NodeId {
        let (issuer, recipient) = (self.document.issuer(), self.document.recipient());
        if issuer == me { recipient } else { issuer }
    }
}

fn unknown(what: &'static str, id: &str) -> PaymentError {
    PaymentError::Unknown { what, id: id.to_owned() }
}
