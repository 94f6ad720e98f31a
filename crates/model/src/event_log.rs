//! Events that clients collect by long polls.

use std::collections::VecDeque;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Events in the order of their dates. Dates have whole microseconds and no two are equal, so that
/// a client that asks for what came after the last date it saw neither misses nor repeats any.
#[derive(Debug, Clone)]
pub struct EventLog<T> {
    events: VecDeque<(DateTime<Utc>, T)>,
    last: Option<DateTime<Utc>>,
    capacity: usize,
}

impl<T> EventLog<T> {
    /// An empty log that keeps the newest `capacity` events.
    pub fn new(capacity: usize) -> Self {
        Self { events: VecDeque::new(), last: None, capacity: capacity.max(1) }
    }

    /// Adds an event and says which date it got: `now`, or the next free microsecond.
    pub fn push(&mut self, now: DateTime<Utc>, event: T) -> DateTime<Utc> {
        let now = whole_micros(now);
        let date = match self.last {
            Some(last) if last >= now => last + TimeDelta::microseconds(1),
            _ => now,
        };
        self.keep(date, event);
        date
    }

    /// Adds an event with a date of before, as after a restart; one out of order is left out.
    pub fn restore(&mut self, date: DateTime<Utc>, event: T) {
        if self.last.is_none_or(|last| last < date) {
            self.keep(date, event);
        }
    }

    /// At most `max` events dated later than `after` that `wanted` picks, oldest first.
    pub fn after<'a>(
        &'a self,
        after: Option<DateTime<Utc>>,
        max: usize,
        wanted: impl Fn(&T) -> bool + 'a,
    ) -> impl Iterator<Item = (DateTime<Utc>, &'a T)> + 'a {
        let start = match after {
            Some(after) => self.events.partition_point(|(date, _)| *date <= after),
            None => 0,
        };
        self.events
            .range(start..)
            .filter(move |(_, event)| wanted(event))
            .take(max)
            .map(|(date, event)| (*date, event))
    }

    fn keep(&mut self, date: DateTime<Utc>, event: T) {
        self.last = Some(date);
        if self.events.len() == self.capacity {
            self.events.pop_front();
        }
        self.events.push_back((date, event));
    }
}

/// What a long poll is to do now: answer, or sleep until something happens or the time is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LongPoll<T> {
    /// Answer with these; empty when the time is up.
    Answer(Vec<T>),
    /// Ask again when anything changed, at the latest at this time.
    Wait(DateTime<Utc>),
}

impl<T> LongPoll<T> {
    /// The decision at `now` for a poll that may wait until `deadline` and has found `events`.
    pub fn decide(events: Vec<T>, now: DateTime<Utc>, deadline: DateTime<Utc>) -> Self {
        if events.is_empty() && now < deadline {
            Self::Wait(deadline)
        } else {
            Self::Answer(events)
        }
    }
}

/// A date without its nanoseconds: Golem's clients read at most microseconds.
pub fn whole_micros(date: DateTime<Utc>) -> DateTime<Utc> {
    date.trunc_subsecs(6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_nanos(nanos)
    }

    #[test]
    fn dates_grow_strictly_and_have_whole_micros() {
        let mut log = EventLog::new(10);
        assert_eq!(log.push(at(1_999), 'a'), at(1_000));
        assert_eq!(log.push(at(1_999), 'b'), at(2_000));
        assert_eq!(log.push(at(0), 'c'), at(3_000));
        let all: String = log.after(None, 9, |_| true).map(|(_, c)| *c).collect();
        assert_eq!(all, "abc");
        let some: String = log.after(Some(at(1_000)), 1, |_| true).map(|(_, c)| *c).collect();
        assert_eq!(some, "b");
        assert_eq!(log.after(Some(at(3_000)), 9, |_| true).count(), 0);
    }

    #[test]
    fn the_oldest_give_way() {
        let mut log = EventLog::new(2);
        for i in 0..5 {
            log.push(at(i * 1_000), i);
        }
        let kept: Vec<_> = log.after(None, 9, |_| true).map(|(_, i)| *i).collect();
        assert_eq!(kept, [3, 4]);
    }

    #[test]
    fn a_poll_waits_only_while_there_is_nothing_and_time() {
        assert_eq!(LongPoll::decide(Vec::<u8>::new(), at(0), at(5)), LongPoll::Wait(at(5)));
        assert_eq!(LongPoll::decide(Vec::<u8>::new(), at(5), at(5)), LongPoll::Answer(vec![]));
        assert_eq!(LongPoll::decide(vec![1], at(0), at(5)), LongPoll::Answer(vec![1]));
    }
}
