//! The market: offers and demands, the language in which they say what they want of each other,
//! and the bargaining that ends in an agreement.
//!
//! Sans-IO: the clock and the messages of other nodes are passed in, messages to send come out.

mod agreement;
pub mod constraint;
mod document;
mod engine;
mod event;
mod message;
mod offer_book;
mod offer_exchange;
mod property;
pub mod provider;

pub use agreement::{
    Agreement, AgreementChange, AgreementEvent, AgreementListEntry, AgreementState, Terms,
};
pub use constraint::{Constraint, ConstraintError, Exclusion};
pub use document::{
    Demand, Draft, Offer, Proposal, ProposalId, ProposalState, Reason, Side, SubscriptionId,
};
pub use engine::{
    AgreementFilter, DEMAND_LIFE, ExcludedBy, MAX_NEGOTIATIONS_PER_NODE, MAX_PROVIDERS,
    MAX_SUBSCRIPTIONS, Market, MarketError, MatchReport, NEGOTIATION_LIFE, Negotiation, Notice,
    Record, SECOND_CHOICE,
};
pub use event::MarketEvent;
pub use message::{MarketMessage, Transmit, WireProposal};
pub use offer_book::{
    BookChange, MAX_BOOK, MAX_OFFERS, MAX_SHEET, MAX_VALIDITY, OfferBook, OfferSheet, SheetError,
    SignedSheet,
};
pub use offer_exchange::{MAX_ANSWER, MAX_WAIT_MS, OFFERS, OfferDesk, OfferReply, OfferRequest};
pub use property::{MAX_BYTES, MAX_PROPERTIES, Properties, PropertyError};
