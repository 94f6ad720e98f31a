//! Payment: allocations, debit notes and invoices as real documents with real states, and the
//! driver that settles them. The driver that ships moves no money: every amount due is zero.
//!
//! Sans-IO: the clock and the messages of other nodes are passed in, messages to send come out.

mod allocation;
mod amount;
mod document;
mod driver;
mod ledger;
mod message;
pub mod platform;

pub use allocation::{
    Allocation, AllocationUpdate, MarketDecoration, MarketProperty, NewAllocation, decorations,
};
pub use amount::{Amount, AmountError};
pub use document::{
    Acceptance, ActivityPayment, AgreementPayment, DebitNote, Document, DocumentStatus, Invoice,
    Kind, NewDebitNote, NewInvoice, Payment, Rejection, RejectionReason,
};
pub use driver::{Driver, DriverError, PaymentOrder, Progress, ZeroMoney};
pub use ledger::{
    Contract, Entry, EventFilter, Ledger, MAX_ALLOCATIONS, MAX_DOCUMENTS, PaymentError, Record,
    Role,
};
pub use message::{Change, DocumentEvent, PaymentMessage, Transmit};
pub use platform::{DEFAULT_PLATFORM, KNOWN_PLATFORMS, PlatformName};
