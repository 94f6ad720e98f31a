//! Moments as Golem's daemons print them: RFC 3339, or the same without a zone, which means UTC.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Deserializer, de};

/// Reads a moment in either form.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(d)?;
    DateTime::parse_from_rfc3339(&text)
        .map(|moment| moment.to_utc())
        .or_else(|_| text.parse::<NaiveDateTime>().map(|moment| moment.and_utc()))
        .map_err(de::Error::custom)
}
