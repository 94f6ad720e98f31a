//! The constraint language: what one side of a bargain wants of the other.
//!
//! It looks like LDAP's search filters (RFC 1960, RFC 4515) and is evaluated over [`Properties`]:
//! `(&(golem.runtime.capabilities=vpn) (golem.inf.mem.gib>=0.5) (!(golem.node.id.name=bad*)))`.

mod eval;
mod literal;
mod parse;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Properties;

pub use eval::{Exclusion, Truth};
pub use literal::Literal;
pub use parse::{ConstraintError, MAX_DEPTH, MAX_LENGTH};

/// A parsed constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// All of these; true when there are none.
    And(Vec<Constraint>),
    /// At least one of these; false when there are none.
    Or(Vec<Constraint>),
    /// Not this.
    Not(Box<Constraint>),
    /// The property is there, whatever its value: `(name=*)`.
    Present(String),
    /// The property compares to the literal as said.
    Compare {
        /// The property's name, without a type suffix.
        property: String,
        /// How the literal is to be read.
        kind: Kind,
        /// The comparison.
        operator: Operator,
        /// What it is compared to.
        literal: Literal,
    },
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`: equal; for a list, that it contains the literal.
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// How a literal is read: by the property's own type unless the name has a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No suffix.
    Natural,
    /// `name@d`, `name@t`: a date.
    Date,
    /// `name@v`: a version such as 1.10.2.
    Version,
}

impl Constraint {
    /// Reads a constraint. Empty text and `()` are met by everything.
    ///
    /// # Errors
    /// [`ConstraintError`] with the place where the text stops making sense.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        parse::parse(text)
    }

    /// Whether `properties` meet the constraint.
    pub fn is_met_by(&self, properties: &Properties) -> bool {
        eval::evaluate(self, properties) == Truth::True
    }

    /// The three-valued result: a comparison with an absent property is neither true nor false.
    pub fn evaluate(&self, properties: &Properties) -> Truth {
        eval::evaluate(self, properties)
    }

    /// The clauses that `properties` do not meet; empty when they meet the whole.
    pub fn exclusions(&self, properties: &Properties) -> Vec<Exclusion> {
        eval::exclusions(self, properties)
    }

    /// The names of the properties that the constraint mentions.
    pub fn property_names(&self) -> Vec<&str> {
        match self {
            Self::And(list) | Self::Or(list) => {
                list.iter().flat_map(Self::property_names).collect()
            }
            Self::Not(inner) => inner.property_names(),
            Self::Present(name) | Self::Compare { property: name, .. } => vec![name],
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, sign: &str, list: &[Constraint]| {
            write!(f, "({sign}")?;
            list.iter().try_for_each(|c| c.fmt(f))?;
            f.write_str(")")
        };
        match self {
            Self::And(children) if children.is_empty() => f.write_str("()"),
            Self::And(children) => list(f, "&", children),
            Self::Or(children) => list(f, "|", children),
            Self::Not(inner) => write!(f, "(!{inner})"),
            Self::Present(name) => write!(f, "({name}=*)"),
            Self::Compare { property, kind, operator, literal } => {
                write!(f, "({property}{kind}{operator}{literal})")
            }
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Natural => "",
            Self::Date => "@d",
            Self::Version => "@v",
        })
    }
}

impl Serialize for Constraint {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}
