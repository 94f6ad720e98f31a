//! Whether properties meet a constraint, and which clause they do not.

use std::{cmp::Ordering, fmt};

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::{Constraint, Kind, Literal, Operator};
use crate::Properties;

/// A result in three-valued logic (as LDAP's): a comparison with an absent property is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// A property that decides is absent, or of a type that cannot be compared so.
    Unknown,
}

/// A clause that is not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// The clause, as text.
    pub clause: String,
    /// The value that was found where it compares one property; `None` if it is absent.
    pub found: Option<String>,
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "{} (it is {found})", self.clause),
            None => write!(f, "{} (no such property)", self.clause),
        }
    }
}

impl From<bool> for Truth {
    fn from(b: bool) -> Self {
        if b { Self::True } else { Self::False }
    }
}

pub(super) fn evaluate(constraint: &Constraint, properties: &Properties) -> Truth {
    match constraint {
        Constraint::And(list) => all(list.iter().map(|c| evaluate(c, properties)), Truth::False),
        Constraint::Or(list) => all(list.iter().map(|c| evaluate(c, properties)), Truth::True),
        Constraint::Not(inner) => not(evaluate(inner, properties)),
        Constraint::Present(name) => Truth::from(properties.get(name).is_some()),
        Constraint::Compare { property, kind, operator, literal } => match properties.get(property)
        {
            Some(value) => compare(value, *kind, *operator, literal),
            None => Truth::Unknown,
        },
    }
}

pub(super) fn exclusions(constraint: &Constraint, properties: &Properties) -> Vec<Exclusion> {
    if evaluate(constraint, properties) == Truth::True {
        return Vec::new();
    }
    match constraint {
        Constraint::And(list) => list.iter().flat_map(|c| exclusions(c, properties)).collect(),
        Constraint::Or(list) if list.len() == 1 => exclusions(&list[0], properties),
        Constraint::Or(_) | Constraint::Not(_) => {
            let mut names = constraint.property_names();
            names.sort_unstable();
            names.dedup();
            let found = names
                .iter()
                .filter_map(|name| Some(format!("{name}: {}", properties.get(name)?)))
                .collect::<Vec<_>>()
                .join(", ");
            let found = Some(found).filter(|f| !f.is_empty());
            vec![Exclusion { clause: constraint.to_string(), found }]
        }
        Constraint::Present(name) | Constraint::Compare { property: name, .. } => {
            let found = properties.get(name).map(ToString::to_string);
            vec![Exclusion { clause: constraint.to_string(), found }]
        }
    }
}

/// The decisive value if any has it, else unknown if any is, else the opposite of the decisive.
fn all(values: impl Iterator<Item = Truth>, decisive: Truth) -> Truth {
    let mut result = not(decisive);
    for value in values {
        if value == decisive {
            return decisive;
        }
        if value == Truth::Unknown {
            result = Truth::Unknown;
        }
    }
    result
}

fn not(value: Truth) -> Truth {
    match value {
        Truth::True => Truth::False,
        Truth::False => Truth::True,
        Truth::Unknown => Truth::Unknown,
    }
}

fn compare(value: &Value, kind: Kind, operator: Operator, literal: &Literal) -> Truth {
    match operator {
        Operator::Equal => equal(value, kind, literal),
        Operator::NotEqual => not(equal(value, kind, literal)),
        _ => match order(value, kind, literal) {
            Some(order) => Truth::from(match operator {
                Operator::Less => order.is_lt(),
                Operator::LessOrEqual => order.is_le(),
                Operator::Greater => order.is_gt(),
                Operator::GreaterOrEqual => order.is_ge(),
                Operator::Equal | Operator::NotEqual => order.is_eq(),
            }),
            None => Truth::Unknown,
        },
    }
}

fn equal(value: &Value, kind: Kind, literal: &Literal) -> Truth {
    if let (Value::Array(items), Some(wanted)) = (value, literal.as_list()) {
        let same = items.len() == wanted.len()
            && items.iter().zip(&wanted).all(|(v, l)| equal(v, kind, l) == Truth::True);
        return Truth::from(same);
    }
    match (value, kind) {
        (Value::Array(items), _) => {
            Truth::from(items.iter().any(|item| equal(item, kind, literal) == Truth::True))
        }
        (_, Kind::Date | Kind::Version) => {
            order(value, kind, literal).map_or(Truth::Unknown, |o| Truth::from(o.is_eq()))
        }
        (Value::String(text), Kind::Natural) => Truth::from(literal.matches(text)),
        (Value::Bool(b), _) => match literal.as_plain().map(str::to_ascii_lowercase).as_deref() {
            Some("true") => Truth::from(*b),
            Some("false") => Truth::from(!*b),
            _ => Truth::Unknown,
        },
        (Value::Number(n), _) => {
            match literal.as_plain().and_then(|text| compare_number(n, text)) {
                Some(order) => Truth::from(order.is_eq()),
                None => Truth::Unknown,
            }
        }
        (Value::Null | Value::Object(_), _) => Truth::Unknown,
    }
}

fn order(value: &Value, kind: Kind, literal: &Literal) -> Option<Ordering> {
    let wanted = literal.as_plain()?;
    match (value, kind) {
        (Value::Number(n), _) => compare_number(n, wanted),
        (Value::String(text), Kind::Date) => Some(date(text)?.cmp(&date(wanted)?)),
        (Value::String(text), Kind::Version) => Some(compare_versions(text, wanted)),
        (Value::String(text), Kind::Natural) => {
            if let (Some(a), Some(b)) = (number(text), number(wanted)) {
                return a.compare(b);
            }
            if let (Some(a), Some(b)) = (date(text), date(wanted)) {
                return Some(a.cmp(&b));
            }
            Some(text.as_str().cmp(wanted))
        }
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Numeric {
    Whole(i128),
    Real(f64),
}

impl Numeric {
    fn compare(self, other: Self) -> Option<Ordering> {
        let real = |n| match n {
            Self::Whole(i) => i as f64,
            Self::Real(f) => f,
        };
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (a, b) => real(a).partial_cmp(&real(b)),
        }
    }
}

fn number(text: &str) -> Option<Numeric> {
    let text = text.trim();
    let whole = text.parse().map(Numeric::Whole).ok();
    whole.or_else(|| text.parse().ok().filter(|f: &f64| f.is_finite()).map(Numeric::Real))
}

fn compare_number(n: &Number, wanted: &str) -> Option<Ordering> {
    let n = n
        .as_i64()
        .map(i128::from)
        .or_else(|| n.as_u64().map(i128::from))
        .map(Numeric::Whole)
        .or_else(|| n.as_f64().map(Numeric::Real))?;
    n.compare(number(wanted)?)
}

fn date(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let zoned = DateTime::parse_from_rfc3339(text).map(|d| d.with_timezone(&Utc));
    zoned
        .or_else(|_| {
            NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|d| d.and_utc())
        })
        .ok()
        .or_else(|| {
            let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            Some(day.and_hms_opt(0, 0, 0)?.and_utc())
        })
}

/// Dot by dot, numbers as numbers; a missing part is older than any.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let mut a = a.trim().trim_start_matches('v').split(['.', '-', '+']);
    let mut b = b.trim().trim_start_matches('v').split(['.', '-', '+']);
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => match (x.parse::<u64>(), y.parse::<u64>()) {
                (Ok(x), Ok(y)) => x.cmp(&y),
                _ => x.cmp(y),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}
