//! What clients ask about agreements.

use chrono::{DateTime, Utc};
use gvpn_model::{AgreementId, LongPoll};

use crate::{
    Agreement, AgreementChange, AgreementEvent, AgreementListEntry, AgreementState, Side,
    engine::{Deal, Market, MarketError, unknown},
};

/// Which agreements to list; all where nothing is set.
#[derive(Debug, Clone, Default)]
pub struct AgreementFilter {
    /// In this state.
    pub state: Option<AgreementState>,
    /// Written before.
    pub before: Option<DateTime<Utc>>,
    /// Written after.
    pub after: Option<DateTime<Utc>>,
    /// Of this client session.
    pub session: Option<String>,
}

impl Market {
    /// One agreement.
    ///
    /// # Errors
    /// [`MarketError::Unknown`].
    pub fn agreement(&self, id: AgreementId) -> Result<&Agreement, MarketError> {
        self.deals.get(&id).map(|d| &d.agreement).ok_or_else(|| unknown("agreement", id))
    }

    /// This node's side of an agreement.
    pub fn side(&self, id: AgreementId) -> Option<Side> {
        self.deals.get(&id).map(|d| d.side)
    }

    /// The agreements that pass the filter.
    pub fn agreements(&self, filter: &AgreementFilter) -> Vec<AgreementListEntry> {
        self.deals
            .values()
            .filter(|Deal { agreement: a, .. }| {
                filter.state.is_none_or(|s| s == a.state)
                    && filter.before.is_none_or(|t| a.timestamp < t)
                    && filter.after.is_none_or(|t| a.timestamp > t)
                    && (filter.session.is_none() || filter.session == a.app_session_id)
            })
            .map(|Deal { agreement: a, side, .. }| AgreementListEntry {
                id: a.agreement_id,
                timestamp: a.timestamp,
                approved_date: a.approved_date,
                role: *side,
            })
            .collect()
    }

    /// What a client that waits for the provider's answer until `deadline` gets: `Ok` once it is
    /// approved, an empty answer when the time is up.
    ///
    /// # Errors
    /// [`MarketError::Gone`] when the answer is no, or none can come any more.
    pub fn await_approval(
        &self,
        now: DateTime<Utc>,
        id: AgreementId,
        deadline: DateTime<Utc>,
    ) -> Result<LongPoll<AgreementState>, MarketError> {
        let agreement = &self.deal(Side::Requestor, id)?.agreement;
        match agreement.state {
            AgreementState::Approved => Ok(LongPoll::Answer(vec![AgreementState::Approved])),
            AgreementState::Pending if agreement.valid_to > now => {
                let found = Vec::new();
                Ok(LongPoll::decide(found, now, deadline.min(agreement.valid_to)))
            }
            AgreementState::Pending => Err(over(id, AgreementState::Expired)),
            AgreementState::Proposal => {
                Err(MarketError::Conflict(format!("agreement {id} is not confirmed yet")))
            }
            state => Err(self.why_over(id, state)),
        }
    }

    /// At most `max` events about agreements dated later than `after`, for a client that waits
    /// until `deadline`; those of one client session only, if it says which.
    pub fn agreement_events(
        &self,
        now: DateTime<Utc>,
        after: Option<DateTime<Utc>>,
        max: usize,
        session: Option<&str>,
        deadline: DateTime<Utc>,
    ) -> LongPoll<AgreementEvent> {
        let of_session = |id: &AgreementId| {
            let agreement = self.deals.get(id).map(|d| &d.agreement);
            session.is_none() || agreement.is_some_and(|a| a.app_session_id.as_deref() == session)
        };
        let events = self
            .events
            .after(after, max, |(id, _)| of_session(id))
            .map(|(event_date, (agreement_id, change))| AgreementEvent {
                event_date,
                agreement_id: *agreement_id,
                change: change.clone(),
            })
            .collect();
        LongPoll::decide(events, now, deadline)
    }

    /// Agreements in force, with this node's side.
    pub fn in_force_now(&self) -> impl Iterator<Item = (&Agreement, Side)> {
        self.deals
            .values()
            .filter(|d| d.agreement.state == AgreementState::Approved)
            .map(|d| (&d.agreement, d.side))
    }

    pub(super) fn deal(&self, side: Side, id: AgreementId) -> Result<&Deal, MarketError> {
        self.deals.get(&id).filter(|d| d.side == side).ok_or_else(|| unknown("agreement", id))
    }

    /// As [`over`], with the reason that was given.
    fn why_over(&self, id: AgreementId, state: AgreementState) -> MarketError {
        let mut why = self.events.after(None, usize::MAX, |(of, _)| *of == id).filter_map(
            |(_, (_, change))| match change {
                AgreementChange::AgreementRejectedEvent { reason }
                | AgreementChange::AgreementCancelledEvent { reason }
                | AgreementChange::AgreementTerminatedEvent { reason, .. } => reason.as_ref(),
                AgreementChange::AgreementApprovedEvent => None,
            },
        );
        match why.next() {
            Some(reason) => MarketError::Gone(format!(
                "agreement {id} is {}: {}",
                name(state),
                reason.message()
            )),
            None => over(id, state),
        }
    }
}

pub(super) fn over(id: AgreementId, state: AgreementState) -> MarketError {
    MarketError::Gone(format!("agreement {id} is {}", name(state)))
}

fn name(state: AgreementState) -> &'static str {
    match state {
        AgreementState::Proposal => "not sent",
        AgreementState::Pending => "waiting for the provider",
        AgreementState::Cancelled => "cancelled",
        AgreementState::Rejected => "rejected by the provider",
        AgreementState::Approved => "in force",
        AgreementState::Expired => "expired: the provider did not approve it in time",
        AgreementState::Terminated => "terminated",
    }
}
