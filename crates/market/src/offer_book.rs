//! Offers of many providers: what a relay keeps and a requestor learns.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use gvpn_identity::{Identity, Signature};
use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};

use crate::{Constraint, Offer, SubscriptionId, property::MAX_BYTES};

/// Most offers of one provider.
pub const MAX_OFFERS: usize = 32;
/// Most bytes of one provider's sheet.
pub const MAX_SHEET: usize = MAX_BYTES;
/// Most bytes of all sheets of a book.
pub const MAX_BOOK: usize = 256 << 20;
/// Longest time that a sheet may be valid for.
pub const MAX_VALIDITY: TimeDelta = TimeDelta::hours(1);
/// How far the clocks of two nodes may differ.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);
const DOMAIN: &str = "gvpn offers v1";

/// All offers of one provider at one time. A later sheet replaces it; an empty one withdraws all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfferSheet {
    /// Whose offers.
    pub provider: NodeId,
    /// When it was made; it replaces sheets made before.
    pub made: DateTime<Utc>,
    /// Until when it is valid unless replaced.
    pub expires: DateTime<Utc>,
    /// The offers.
    pub offers: Vec<Offer>,
}

/// A sheet as it travels: its JSON, and the provider's signature over it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignedSheet {
    sheet: String,
    signature: Signature,
}

/// Why a sheet is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SheetError {
    /// Not signed by the provider it names.
    #[error("the offers are not signed by their provider")]
    Forged,
    /// Its content makes no sense.
    #[error("the offers are not valid: {0}")]
    Invalid(String),
    /// A newer one is known already.
    #[error("the offers are older than the ones known")]
    Stale,
    /// Its time is over, or too long.
    #[error("the offers have expired, or are valid for more than an hour: check the clock")]
    Expired,
    /// The book is full.
    #[error("there are too many providers already")]
    Full,
}

impl OfferSheet {
    /// Signs the sheet.
    ///
    /// # Errors
    /// [`SheetError::Invalid`] if it is more than a provider may publish.
    pub fn sign(&self, identity: &Identity) -> Result<SignedSheet, SheetError> {
        let sheet = serde_json::to_string(self).map_err(|e| SheetError::Invalid(e.to_string()))?;
        self.check(sheet.len())?;
        let signature = identity.sign(DOMAIN, sheet.as_bytes());
        Ok(SignedSheet { sheet, signature })
    }

    fn check(&self, bytes: usize) -> Result<(), SheetError> {
        if self.offers.len() > MAX_OFFERS || bytes > MAX_SHEET {
            return Err(SheetError::Invalid(format!(
                "a provider has at most {MAX_OFFERS} offers of together {MAX_SHEET} bytes"
            )));
        }
        for offer in &self.offers {
            if offer.provider_id != self.provider
                || !offer.offer_id.fits(self.provider, offer.timestamp, &offer.draft)
            {
                return Err(SheetError::Invalid("an offer's id does not fit it".to_owned()));
            }
            Constraint::parse(&offer.draft.constraints)
                .map_err(|e| SheetError::Invalid(e.to_string()))?;
        }
        Ok(())
    }
}

impl SignedSheet {
    /// Reads the sheet after checking everything that can be checked about it.
    ///
    /// # Errors
    /// [`SheetError`].
    pub fn open(&self, now: DateTime<Utc>) -> Result<OfferSheet, SheetError> {
        if self.sheet.len() > MAX_SHEET {
            return Err(SheetError::Invalid("too long".to_owned()));
        }
        let sheet: OfferSheet =
            serde_json::from_str(&self.sheet).map_err(|e| SheetError::Invalid(e.to_string()))?;
        self.signature
            .verify(sheet.provider, DOMAIN, self.sheet.as_bytes())
            .map_err(|_| SheetError::Forged)?;
        sheet.check(self.sheet.len())?;
        let too_long = sheet.expires - sheet.made > MAX_VALIDITY;
        if too_long || sheet.expires + CLOCK_SKEW <= now || sheet.made > now + CLOCK_SKEW {
            return Err(SheetError::Expired);
        }
        Ok(sheet)
    }
}

/// What a sheet changed.
#[derive(Debug, Default, PartialEq)]
pub struct BookChange {
    /// Offers that were not there before.
    pub added: Vec<Offer>,
    /// Offers that are gone.
    pub removed: Vec<SubscriptionId>,
}

#[derive(Debug)]
struct Entry {
    signed: SignedSheet,
    sheet: OfferSheet,
    changed: u64,
}

/// The newest sheet of each provider.
#[derive(Debug)]
pub struct OfferBook {
    entries: BTreeMap<NodeId, Entry>,
    capacity: usize,
    bytes: usize,
    cursor: u64,
}

impl OfferBook {
    /// An empty book for at most `capacity` providers.
    pub fn new(capacity: usize) -> Self {
        Self { entries: BTreeMap::new(), capacity, bytes: 0, cursor: 0 }
    }

    /// Takes a sheet in.
    ///
    /// # Errors
    /// [`SheetError`]; the book is then unchanged.
    pub fn accept(
        &mut self,
        now: DateTime<Utc>,
        signed: SignedSheet,
    ) -> Result<BookChange, SheetError> {
        let sheet = signed.open(now)?;
        let known = self.entries.get(&sheet.provider);
        if known.is_some_and(|k| k.sheet.made >= sheet.made) {
            return Err(SheetError::Stale);
        }
        let before = known.map_or(0, |k| k.signed.sheet.len());
        let bytes = self.bytes - before + signed.sheet.len();
        if (known.is_none() && self.entries.len() >= self.capacity) || bytes > MAX_BOOK {
            return Err(SheetError::Full);
        }
        let old = known.map(|k| k.sheet.offers.as_slice()).unwrap_or_default();
        let change = difference(old, &sheet.offers);
        self.bytes = bytes;
        self.cursor += 1;
        let entry = Entry { signed, changed: self.cursor, sheet };
        self.entries.insert(entry.sheet.provider, entry);
        Ok(change)
    }

    /// Forgets what is over; returns the offers that are gone.
    pub fn expire(&mut self, now: DateTime<Utc>) -> Vec<SubscriptionId> {
        let mut gone = Vec::new();
        let bytes = &mut self.bytes;
        self.entries.retain(|_, entry| {
            let keep = entry.sheet.expires > now;
            if !keep {
                *bytes -= entry.signed.sheet.len();
                gone.extend(entry.sheet.offers.iter().map(|o| o.offer_id.clone()));
            }
            keep
        });
        gone
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn next_expiry(&self) -> Option<DateTime<Utc>> {
        self.entries.values().map(|e| e.sheet.expires).min()
    }

    /// At most `max` sheets that changed after `cursor`, oldest change first, and the cursor to
    /// ask with the next time. A cursor of another book's life gives everything.
    pub fn changes_since(&self, cursor: u64, max: usize) -> (u64, Vec<SignedSheet>) {
        let cursor = if cursor > self.cursor { 0 } else { cursor };
        let mut changed: Vec<_> = self.entries.values().filter(|e| e.changed > cursor).collect();
        changed.sort_unstable_by_key(|e| e.changed);
        changed.truncate(max);
        let next = changed.last().map_or(cursor, |e| e.changed);
        (next, changed.into_iter().map(|e| e.signed.clone()).collect())
    }

    /// Every offer known.
    pub fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.entries.values().flat_map(|e| &e.sheet.offers)
    }

    /// A provider's sheet, as it travels.
    pub fn sheet(&self, provider: NodeId) -> Option<&SignedSheet> {
        self.entries.get(&provider).map(|entry| &entry.signed)
    }

    /// The providers that have a sheet here.
    pub fn providers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.entries.keys().copied()
    }

    /// Whether a provider's sheet has this offer.
    pub fn has(&self, provider: NodeId, offer: &SubscriptionId) -> bool {
        let entry = self.entries.get(&provider);
        entry.is_some_and(|e| e.sheet.offers.iter().any(|o| o.offer_id == *offer))
    }

    /// How many providers have a sheet here.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn difference(old: &[Offer], new: &[Offer]) -> BookChange {
    let has = |list: &[Offer], id: &SubscriptionId| list.iter().any(|o| o.offer_id == *id);
    BookChange {
        added: new.iter().filter(|o| !has(old, &o.offer_id)).cloned().collect(),
        removed: old
            .iter()
            .filter(|o| !has(new, &o.offer_id))
            .map(|o| o.offer_id.clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Draft;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_nanos(seconds * 1_000_000_000)
    }

    fn offer(provider: &Identity, nonce: u8) -> Offer {
        let draft = Draft {
            properties: [("golem.runtime.name", "vm")].into_iter().collect(),
            constraints: String::new(),
        };
        let (provider_id, timestamp) = (provider.node_id(), at(0));
        let offer_id = SubscriptionId::derive([nonce; 16], provider_id, timestamp, &draft);
        Offer { offer_id, provider_id, timestamp, draft }
    }

    fn sheet(provider: &Identity, made: i64, nonces: &[u8]) -> OfferSheet {
        OfferSheet {
            provider: provider.node_id(),
            made: at(made),
            expires: at(made + 300),
            offers: nonces.iter().map(|n| offer(provider, *n)).collect(),
        }
    }

    #[test]
    fn sheets_replace_each_other_and_expire() {
        let me = Identity::generate();
        let mut book = OfferBook::new(10);
        let signed = |made, nonces: &[u8]| sheet(&me, made, nonces).sign(&me).unwrap();
        let change = book.accept(at(0), signed(0, &[1, 2])).unwrap();
        assert_eq!((change.added.len(), change.removed.len()), (2, 0));
        let change = book.accept(at(1), signed(1, &[2, 3])).unwrap();
        assert_eq!(change.added, [offer(&me, 3)]);
        assert_eq!(change.removed, [offer(&me, 1).offer_id]);
        assert_eq!(book.accept(at(1), signed(0, &[1, 2])), Err(SheetError::Stale));
        assert_eq!(book.next_expiry(), Some(at(301)));
        assert_eq!(book.expire(at(300)), []);
        assert_eq!(book.expire(at(301)).len(), 2);
        assert!(book.is_empty());
    }

    #[test]
    fn forged_foreign_old_and_oversized_sheets_are_refused() {
        let (me, other) = (Identity::generate(), Identity::generate());
        let mut book = OfferBook::new(1);
        let forged = sheet(&me, 0, &[1]).sign(&other).unwrap();
        assert_eq!(book.accept(at(0), forged), Err(SheetError::Forged));
        let mut foreign = sheet(&me, 0, &[1]);
        foreign.offers = vec![offer(&other, 1)];
        assert!(matches!(foreign.sign(&me), Err(SheetError::Invalid(_))));
        let late = sheet(&me, 0, &[1]).sign(&me).unwrap();
        assert_eq!(book.accept(at(3600), late.clone()), Err(SheetError::Expired));
        let crowd: Vec<u8> = (0..=MAX_OFFERS as u8).collect();
        assert!(matches!(sheet(&me, 0, &crowd).sign(&me), Err(SheetError::Invalid(_))));
        book.accept(at(0), late).unwrap();
        let second = sheet(&other, 0, &[1]).sign(&other).unwrap();
        assert_eq!(book.accept(at(0), second), Err(SheetError::Full));
    }

    #[test]
    fn changes_are_told_once_and_a_strange_cursor_gives_all() {
        let nodes: Vec<_> = (0..3).map(|_| Identity::generate()).collect();
        let mut book = OfferBook::new(10);
        for node in &nodes {
            book.accept(at(0), sheet(node, 0, &[1]).sign(node).unwrap()).unwrap();
        }
        let (cursor, first) = book.changes_since(0, 2);
        assert_eq!(first.len(), 2);
        let (cursor, rest) = book.changes_since(cursor, 2);
        assert_eq!(rest.len(), 1);
        assert_eq!(book.changes_since(cursor, 2), (cursor, vec![]));
        book.accept(at(1), sheet(&nodes[0], 1, &[]).sign(&nodes[0]).unwrap()).unwrap();
        assert_eq!(book.changes_since(cursor, 2).1.len(), 1);
        assert_eq!(book.changes_since(999, 10).1.len(), 3);
    }
}
