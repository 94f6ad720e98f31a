//! How offers spread: providers give their sheets to relays, requestors ask for what changed.

use chrono::{DateTime, Utc};
use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};

use crate::{OfferBook, SheetError, SignedSheet};

/// The service that relays, and providers for their own offers, serve.
pub const OFFERS: &str = "gvpn.offers.1";
/// Most sheets in one answer.
pub const MAX_ANSWER: usize = 32;
/// Longest wait for a change, in milliseconds.
pub const MAX_WAIT_MS: u32 = 25_000;

/// A request to who keeps offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferRequest {
    /// From a provider: these are my offers now.
    Publish(SignedSheet),
    /// From a requestor: what has changed?
    Changes {
        /// The book that `since` is about, as the last answer said; 0 at first.
        book: u64,
        /// The cursor of the last answer; 0 for everything.
        since: u64,
        /// How long to wait for a change if there is none, in milliseconds.
        wait_ms: u32,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferReply {
    /// The sheet is kept.
    Published,
    /// What changed. There may be more: ask again until there is nothing.
    Changes {
        /// Which book this is.
        book: u64,
        /// The cursor to ask with the next time.
        cursor: u64,
        /// Sheets that are new.
        sheets: Vec<SignedSheet>,
    },
    /// No, with the reason.
    Refused(String),
}

/// An [`OfferBook`] with a name, so that a requestor notices when another one answers, such as after
/// a restart.
#[derive(Debug)]
pub struct OfferDesk {
    id: u64,
    book: OfferBook,
}

impl OfferDesk {
    /// An empty book of a random name (not 0) for at most `capacity` providers.
    pub fn new(id: u64, capacity: usize) -> Self {
        Self { id: id.max(1), book: OfferBook::new(capacity) }
    }

    /// The book.
    pub fn book(&self) -> &OfferBook {
        &self.book
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now: DateTime<Utc>) {
        self.book.expire(now);
    }

    /// Keeps a sheet that `from` brings; everybody brings only their own.
    ///
    /// # Errors
    /// [`SheetError`].
    pub fn publish(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        sheet: SignedSheet,
    ) -> Result<(), SheetError> {
        if sheet.open(now)?.provider != from {
            return Err(SheetError::Forged);
        }
        match self.book.accept(now, sheet) {
            // A provider that did not get the answer brings the same again.
            Ok(_) | Err(SheetError::Stale) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What changed since; an answer without sheets is worth a wait.
    pub fn changes(&self, book: u64, since: u64) -> OfferReply {
        let since = if book == self.id { since } else { 0 };
        let (cursor, sheets) = self.book.changes_since(since, MAX_ANSWER);
        OfferReply::Changes { book: self.id, cursor, sheets }
    }
}

impl OfferReply {
    /// Whether there is nothing in it to tell.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Changes { sheets, .. } if sheets.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use gvpn_identity::Identity;

    use super::*;
    use crate::OfferSheet;

    #[test]
    fn a_new_book_tells_everything_again() {
        let (me, other) = (Identity::generate(), Identity::generate());
        let now = DateTime::from_timestamp_nanos(0);
        let sheet = OfferSheet {
            provider: me.node_id(),
            made: now,
            expires: now + TimeDelta::minutes(1),
            offers: vec![],
        };
        let signed = sheet.sign(&me).unwrap();
        let mut desk = OfferDesk::new(7, 10);
        assert_eq!(desk.publish(now, other.node_id(), signed.clone()), Err(SheetError::Forged));
        for _ in 0..2 {
            desk.publish(now, me.node_id(), signed.clone()).unwrap();
        }
        let OfferReply::Changes { book, cursor, sheets } = desk.changes(0, 0) else { panic!() };
        assert_eq!((book, sheets.len()), (7, 1));
        assert!(desk.changes(book, cursor).is_empty());
        let mut new = OfferDesk::new(8, 10);
        new.publish(now, me.node_id(), signed).unwrap();
        assert!(!new.changes(book, cursor).is_empty());
        new.expire(now + TimeDelta::minutes(1));
        assert!(new.changes(0, 0).is_empty());
    }
}
