//! Query parameters that many endpoints share.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de};
use utoipa::IntoParams;

/// How long a poll waits when the client does not say.
const PATIENCE: f64 = 5.0;
/// The longest wait.
const LONGEST: f64 = 3600.0;
/// Most events in one answer.
const MOST: usize = 1000;

/// Parameters of the endpoints that wait for events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// Seconds to wait for an event.
    timeout: Option<f64>,
    /// Only events later than this.
    #[serde(deserialize_with = "date")]
    pub(super) after_timestamp: Option<DateTime<Utc>>,
    max_events: Option<i64>,
    app_session_id: Option<String>,
}

impl EventQuery {
    pub(super) fn patience(&self) -> Duration {
        seconds(self.timeout, PATIENCE)
    }

    pub(super) fn max(&self, default: usize) -> usize {
        at_most(self.max_events, default)
    }

    pub(super) fn session(&self) -> Option<String> {
        self.app_session_id.clone().filter(|s| !s.is_empty())
    }
}

/// Parameters of the endpoints that list documents.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only documents later than this.
    #[serde(deserialize_with = "date")]
    pub(super) after_timestamp: Option<DateTime<Utc>>,
    max_items: Option<i64>,
}

impl ListQuery {
    pub(super) fn max(&self) -> usize {
        at_most(self.max_items, MOST)
    }
}

/// The parameter of endpoints that wait for one thing.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct WaitQuery {
    timeout: Option<f64>,
    app_session_id: Option<String>,
}

impl WaitQuery {
    pub(super) fn patience(&self, default: f64) -> Duration {
        seconds(self.timeout, default)
    }

    pub(super) fn session(&self) -> Option<String> {
        self.app_session_id.clone().filter(|s| !s.is_empty())
    }
}

/// A date as clients write it into a query: a `+` that they forgot to encode arrives as a space.
pub(super) fn date<'de, D: Deserializer<'de>>(d: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
        .or_else(|_| DateTime::parse_from_rfc3339(text))
        .map(|date| Some(date.with_timezone(&Utc)))
        .map_err(|e| {
            de::Error::custom(format!("`{text}` is not a date such as 2026-01-31T12:00:00Z: {e}"))
        })
}

fn seconds(given: Option<f64>, default: f64) -> Duration {
    let seconds = given.filter(|s| s.is_finite()).unwrap_or(default);
    Duration::from_secs_f64(seconds.clamp(0.0, LONGEST))
}

fn at_most(given: Option<i64>, default: usize) -> usize {
    match given {
        Some(n) if n > 0 => usize::try_from(n).unwrap_or(MOST).min(MOST),
        _ => default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<EventQuery, String> {
        let uri = format!("/?{query}").parse().unwrap();
        axum::extract::Query::try_from_uri(&uri).map(|q| q.0).map_err(|e| e.body_text())
    }

    #[test]
    fn dates_come_in_many_forms() {
        let want = Some("2026-11-23T03:31:41.268242Z".parse().unwrap());
        for date in [
            "2026-11-23T03:31:41.268242Z",
            "2026-11-23T03:31:41.268242%2B00:00",
            "2026-11-23T03:31:41.268242+00:00",
            "2026-11-23T03:31:41.268242%2B00%3A00",
        ] {
            assert_eq!(read(&format!("afterTimestamp={date}")).unwrap().after_timestamp, want);
        }
        assert_eq!(read("").unwrap().after_timestamp, None);
        assert!(read("afterTimestamp=yesterday").is_err());
    }

    #[test]
    fn waits_and_numbers_have_limits() {
        assert_eq!(read("").unwrap().patience(), Duration::from_secs(5));
        assert_eq!(read("timeout=0.5").unwrap().patience(), Duration::from_millis(500));
        assert_eq!(read("timeout=-3").unwrap().patience(), Duration::ZERO);
        assert_eq!(read("timeout=1e99").unwrap().patience(), Duration::from_secs(3600));
        assert!(read("timeout=soon").is_err());
        assert_eq!(read("maxEvents=5").unwrap().max(10), 5);
        assert_eq!(read("maxEvents=-1").unwrap().max(10), 10);
        assert_eq!(read("maxEvents=99999").unwrap().max(10), MOST);
    }
}
