//! Amounts of money.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const DECIMALS: usize = 18;
const ONE: u128 = 10_u128.pow(DECIMALS as u32);

/// An amount with 18 decimals, never negative, written as decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "1.5"))]
pub struct Amount(u128);

/// A text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount: expected a decimal number of 0 or more, such as 1.5")]
pub struct AmountError(String);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum; `None` if it is too large to be written.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; `None` if it would be negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let error = || AmountError(text.chars().take(64).collect());
        let (mantissa, exponent) = match text.trim().split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| error())?),
            None => (text.trim(), 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
            return Err(error());
        }
        let value: u128 = format!("{whole}{fraction}").parse().map_err(|_| error())?;
        let fraction = i64::try_from(fraction.len()).map_err(|_| error())?;
        let shift = DECIMALS as i64 - fraction + i64::from(exponent);
        let power = u32::try_from(shift.unsigned_abs()).map_err(|_| error())?;
        // Digits beyond the eighteenth are cut off: nothing can be paid with them.
        let value = if value == 0 {
            Some(0)
        } else if shift >= 0 {
            10_u128.checked_pow(power).and_then(|p| value.checked_mul(p))
        } else {
            Some(10_u128.checked_pow(power).map_or(0, |p| value / p))
        };
        value.map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:018}", self.0 % ONE);
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{}", self.0 / ONE)?;
        if fraction.is_empty() { Ok(()) } else { write!(f, ".{fraction}") }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    /// Text, or a JSON number as some clients send it.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(d)? {
            serde_json::Value::String(text) => text.parse().map_err(de::Error::custom),
            serde_json::Value::Number(n) => n.to_string().parse().map_err(de::Error::custom),
            other => Err(de::Error::custom(AmountError(other.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_of_clients() {
        for (text, want) in [
            ("1", Some("1")),
            ("2.50", Some("2.5")),
            ("0.00", Some("0")),
            (".5", Some("0.5")),
            ("1E+3", Some("1000")),
            ("1e-18", Some("0.000000000000000001")),
            ("0e-99999", Some("0")),
            ("1e-99999", Some("0")),
            ("0.0000000000000000019", Some("0.000000000000000001")),
            ("", None),
            (".", None),
            ("-1", None),
            ("1e99", None),
            ("1,5", None),
            ("NaN", None),
            ("1e99999999999", None),
        ] {
            let read = text.parse::<Amount>().ok().map(|a| a.to_string());
            assert_eq!(read.as_deref(), want, "{text}");
        }
        assert_eq!(serde_json::from_str::<Amount>("2.5").unwrap().to_string(), "2.5");
        assert!(serde_json::from_str::<Amount>("null").is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips(value in any::<u128>()) {
            prop_assert_eq!(Amount(value).to_string().parse(), Ok(Amount(value)));
        }

        #[test]
        fn rubbish_never_panics(text in any::<String>()) {
            let _ = text.parse::<Amount>();
        }
    }
}
