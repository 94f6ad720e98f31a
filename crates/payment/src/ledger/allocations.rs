//! Allocations of this node's clients.

use chrono::{DateTime, Utc};
use gvpn_model::whole_micros;

use super::{Ledger, MAX_ALLOCATIONS, PaymentError, Record, unknown};
use crate::{
    Allocation, AllocationUpdate, Amount, DEFAULT_PLATFORM, MarketDecoration, NewAllocation,
    PlatformName, decorations,
};

impl Ledger {
    /// Puts money aside.
    ///
    /// # Errors
    /// [`PaymentError`] if it is over already, or there are too many.
    pub fn allocate(
        &mut self,
        now: DateTime<Utc>,
        new: NewAllocation,
    ) -> Result<Allocation, PaymentError> {
        self.expire_allocations(now);
        check_timeout(now, new.timeout)?;
        if self.allocations.len() >= MAX_ALLOCATIONS {
            return Err(PaymentError::TooMany(format!(
                "there are {MAX_ALLOCATIONS} allocations already: release some"
            )));
        }
        let platform = new.payment_platform.as_ref().map(PlatformName::resolve);
        let allocation = Allocation {
            allocation_id: self.new_id(),
            address: new
                .address
                .filter(|a| !a.trim().is_empty())
                .unwrap_or_else(|| self.me.to_string()),
            payment_platform: platform.unwrap_or_else(|| DEFAULT_PLATFORM.to_owned()),
            total_amount: new.total_amount,
            spent_amount: Amount::ZERO,
            remaining_amount: new.total_amount,
            timestamp: whole_micros(now),
            timeout: new.timeout.map(whole_micros),
            deposit: new.deposit,
            make_deposit: new.make_deposit,
        };
        self.put_allocation(allocation.clone());
        Ok(allocation)
    }

    /// One allocation.
    ///
    /// # Errors
    /// [`PaymentError::Unknown`], also when it has ended.
    pub fn allocation(&mut self, now: DateTime<Utc>, id: &str) -> Result<Allocation, PaymentError> {
        self.expire_allocations(now);
        self.allocations.get(id).cloned().ok_or_else(|| unknown("allocation", id))
    }

    /// Allocations made later than `after`, oldest first.
    pub fn allocations(
        &mut self,
        now: DateTime<Utc>,
        after: Option<DateTime<Utc>>,
        max: usize,
    ) -> Vec<Allocation> {
        self.expire_allocations(now);
        let newer = |a: &&Allocation| after.is_none_or(|t| a.timestamp > t);
        let mut found: Vec<_> = self.allocations.values().filter(newer).cloned().collect();
        found.sort_by_key(|a| a.timestamp);
        found.truncate(max);
        found
    }

    /// Changes an allocation.
    ///
    /// # Errors
    /// [`PaymentError`] if there is none, it is over already, or more has been spent.
    pub fn amend_allocation(
        &mut self,
        now: DateTime<Utc>,
        id: &str,
        update: AllocationUpdate,
    ) -> Result<Allocation, PaymentError> {
        let mut allocation = self.allocation(now, id)?;
        check_timeout(now, update.timeout)?;
        if let Some(total) = update.total_amount {
            let spent = allocation.spent_amount;
            allocation.remaining_amount = total.checked_sub(spent).ok_or_else(|| {
                PaymentError::Invalid(format!("{spent} of the allocation has been spent already"))
            })?;
            allocation.total_amount = total;
        }
        allocation.timeout = update.timeout.map(whole_micros).or(allocation.timeout);
        allocation.deposit = update.deposit.or(allocation.deposit);
        self.put_allocation(allocation.clone());
        Ok(allocation)
    }

    /// Gives the rest of an allocation back.
    ///
    /// # Errors
    /// [`PaymentError::Unknown`].
    pub fn release_allocation(&mut self, now: DateTime<Utc>, id: &str) -> Result<(), PaymentError> {
        self.allocation(now, id)?;
        self.remove_allocation(id);
        Ok(())
    }

    /// What a demand has to say to pay out of these allocations.
    ///
    /// # Errors
    /// [`PaymentError::Unknown`] if one is not there; `Invalid` if none is named.
    pub fn demand_decorations(
        &mut self,
        now: DateTime<Utc>,
        ids: &[&str],
    ) -> Result<MarketDecoration, PaymentError> {
        if ids.is_empty() {
            return Err(PaymentError::Invalid("allocationIds names no allocation".to_owned()));
        }
        let allocations: Result<Vec<_>, _> =
            ids.iter().map(|id| self.allocation(now, id)).collect();
        Ok(decorations(&allocations?))
    }

    pub(super) fn put_allocation(&mut self, allocation: Allocation) {
        self.records.push_back(Record::Allocation(allocation.clone()));
        self.allocations.insert(allocation.allocation_id.clone(), allocation);
    }

    fn remove_allocation(&mut self, id: &str) {
        self.allocations.remove(id);
        self.records.push_back(Record::AllocationGone(id.to_owned()));
    }

    fn expire_allocations(&mut self, now: DateTime<Utc>) {
        let over = |a: &&Allocation| a.timeout.is_some_and(|t| t <= now);
        let ids: Vec<_> =
            self.allocations.values().filter(over).map(|a| a.allocation_id.clone()).collect();
        ids.iter().for_each(|id| self.remove_allocation(id));
    }
}

fn check_timeout(now: DateTime<Utc>, timeout: Option<DateTime<Utc>>) -> Result<(), PaymentError> {
    match timeout {
        Some(timeout) if timeout <= now => {
            Err(PaymentError::Invalid("the allocation's timeout is in the past".to_owned()))
        }
        _ => Ok(()),
    }
}
