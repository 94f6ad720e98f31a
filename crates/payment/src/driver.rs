//! What settles accepted documents.

use crate::Amount;

/// A payment to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentOrder {
    /// Driver, network and token.
    pub platform: String,
    /// Where the money comes from.
    pub payer: String,
    /// Where it goes.
    pub payee: String,
    /// How much.
    pub amount: Amount,
}

/// Why a driver does not pay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{driver} cannot pay: {reason}")]
pub struct DriverError {
    /// The driver.
    pub driver: &'static str,
    /// What is in the way, and what to do.
    pub reason: String,
}

/// Something that pays. A driver that needs time gives the order to its own machinery and answers
/// [`Progress::Later`]; whoever runs that tells the ledger when it is done.
pub trait Driver: Send {
    /// Its name, as in the first part of a platform's.
    fn name(&self) -> &'static str;

    /// What a provider is to ask for work whose price by its offer is `cost`.
    fn due(&self, cost: Amount) -> Amount;

    /// Pays.
    ///
    /// # Errors
    /// [`DriverError`] when the order cannot be carried out.
    fn pay(&mut self, order: &PaymentOrder) -> Result<Progress, DriverError>;
}

/// How far a payment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Made; with the driver's proof.
    Done(String),
    /// Under way.
    Later,
}

/// The driver that moves no money: everything costs nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct ZeroMoney;

impl Driver for ZeroMoney {
    fn name(&self) -> &'static str {
        "zero-money"
    }

    fn due(&self, _cost: Amount) -> Amount {
        Amount::ZERO
    }

    fn pay(&mut self, order: &PaymentOrder) -> Result<Progress, DriverError> {
        if order.amount.is_zero() {
            return Ok(Progress::Done("no money was moved".to_owned()));
        }
        Err(DriverError {
            driver: self.name(),
            reason: format!(
                "{} is due, and this driver moves no money: accept 0 only",
                order.amount
            ),
        })
    }
}
