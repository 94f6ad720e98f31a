//! Offers, demands and proposals, in the JSON that Golem's clients read and write.

use std::fmt;

use chrono::{DateTime, Utc};
use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha3::{Digest, Sha3_256};

use crate::{Constraint, ConstraintError, Properties};

/// What a client sends to make an offer, a demand or a proposal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Draft {
    /// What the sender says about itself.
    pub properties: Properties,
    /// What it wants of the other side.
    #[serde(default)]
    pub constraints: String,
}

impl Draft {
    /// The constraints, parsed.
    ///
    /// # Errors
    /// [`ConstraintError`].
    pub fn parse_constraints(&self) -> Result<Constraint, ConstraintError> {
        Constraint::parse(&self.constraints)
    }
}

/// The identifier of an offer or a demand: 32 random hexadecimal digits, `-`, and the SHA3-256 of
/// these and what it says, so that an id never stands for two contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct SubscriptionId(String);

impl SubscriptionId {
    /// The id of `draft` when `owner` publishes it at `date`.
    pub fn derive(nonce: [u8; 16], owner: NodeId, date: DateTime<Utc>, draft: &Draft) -> Self {
        let mut hash = Sha3_256::new();
        hash.update(nonce);
        hash.update(owner.as_bytes());
        hash.update(date.timestamp_micros().to_be_bytes());
        hash.update(draft.properties.to_json().to_string());
        hash.update([0]);
        hash.update(&draft.constraints);
        Self(format!("{}-{}", hex::encode(nonce), hex::encode(hash.finalize())))
    }

    /// Whether the id fits this content.
    pub fn fits(&self, owner: NodeId, date: DateTime<Utc>, draft: &Draft) -> bool {
        let mut nonce = [0; 16];
        self.0
            .split_once('-')
            .is_some_and(|(digits, _)| hex::decode_to_slice(digits, &mut nonce).is_ok())
            && *self == Self::derive(nonce, owner, date, draft)
    }
}

impl From<&str> for SubscriptionId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A provider's published offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// Its id.
    pub offer_id: SubscriptionId,
    /// Who offers.
    pub provider_id: NodeId,
    /// When it was made.
    pub timestamp: DateTime<Utc>,
    /// What is offered, and what is wanted of a requestor.
    #[serde(flatten)]
    pub draft: Draft,
}

/// A requestor's demand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Demand {
    /// Its id, which is also the subscription's.
    pub demand_id: SubscriptionId,
    /// Who demands.
    pub requestor_id: NodeId,
    /// When it was made.
    pub timestamp: DateTime<Utc>,
    /// What the requestor says about itself, and what it wants of a provider.
    #[serde(flatten)]
    pub draft: Draft,
}

/// The identifier of a proposal: `R-` or `P-` (on which side it is seen), and 64 hexadecimal digits
/// that both sides share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(String);

impl ProposalId {
    /// An id of random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    /// Reads an id, with or without the side's letter.
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("R-").or_else(|| text.strip_prefix("P-")).unwrap_or(text);
        let valid = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        valid.then(|| Self(digits.to_ascii_lowercase()))
    }

    /// The id as a client on `side` sees it.
    pub fn seen_from(&self, side: Side) -> String {
        match side {
            Side::Requestor => format!("R-{}", self.0),
            Side::Provider => format!("P-{}", self.0),
        }
    }
}

impl fmt::Display for ProposalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ProposalId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ProposalId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::read(&text).ok_or_else(|| serde::de::Error::custom("not a proposal id"))
    }
}

/// A side of a bargain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Side {
    /// Who wants resources.
    Requestor,
    /// Who has them.
    Provider,
}

impl Side {
    /// The opposite side.
    pub fn other(self) -> Self {
        match self {
            Self::Requestor => Self::Provider,
            Self::Provider => Self::Requestor,
        }
    }
}

/// Life of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProposalState {
    /// An offer that matches a demand; the provider does not know of it yet.
    Initial,
    /// Under negotiation.
    Draft,
    /// Turned down.
    Rejected,
    /// An agreement was made of it.
    Accepted,
    /// Too old.
    Expired,
}

/// A proposal, as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    /// Its id.
    pub proposal_id: String,
    /// Who made it.
    pub issuer_id: NodeId,
    /// Where it stands.
    pub state: ProposalState,
    /// When it was made.
    pub timestamp: DateTime<Utc>,
    /// The proposal that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_proposal_id: Option<String>,
    /// What it says.
    #[serde(flatten)]
    pub draft: Draft,
}

/// Why something was rejected, cancelled or terminated: an object with at least a `message`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = Object, example = json!({ "message": "no" })))]
pub struct Reason(Value);

impl Reason {
    /// A reason that is only a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(serde_json::json!({ "message": message.into() }))
    }

    /// A reason with a machine-readable code beside the message.
    pub fn with_code(message: impl Into<String>, key: &str, code: &str) -> Self {
        let mut reason = Self::new(message);
        reason.0[key] = code.into();
        reason
    }

    /// What a client sent: nothing, a text, or an object with or without a message.
    pub fn from_json(json: Value) -> Option<Self> {
        match json {
            Value::Null => None,
            Value::Object(object) if object.get("message").is_some_and(Value::is_string) => {
                Some(Self(Value::Object(object)))
            }
            Value::Object(object) if object.is_empty() => None,
            Value::String(message) => Some(Self::new(message)),
            Value::Object(mut object) => {
                object.insert("message".to_owned(), Value::from(""));
                Some(Self(Value::Object(object)))
            }
            other => Some(Self::new(other.to_string())),
        }
    }

    /// The message.
    pub fn message(&self) -> &str {
        self.0["message"].as_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_fits_one_content_only() {
        let draft = Draft { properties: Properties::default(), constraints: "()".into() };
        let (node, now) = (NodeId::from_bytes([1; 20]), DateTime::from_timestamp_nanos(0));
        let id = SubscriptionId::derive([7; 16], node, now, &draft);
        assert!(id.fits(node, now, &draft));
        assert!(!id.fits(NodeId::from_bytes([2; 20]), now, &draft));
        let other = Draft { constraints: String::new(), ..draft.clone() };
        assert!(!id.fits(node, now, &other));
        assert!(!SubscriptionId::from("zz-").fits(node, now, &draft));
    }

    #[test]
    fn reasons_always_have_a_message() {
        for (json, want) in [
            (json!(null), None),
            (json!({}), None),
            (json!("no"), Some("no")),
            (json!({"message": "no", "golem.requestor.code": "Cancelled"}), Some("no")),
            (json!({"message": 5}), Some("")),
            (json!(5), Some("5")),
        ] {
            let reason = Reason::from_json(json.clone());
            assert_eq!(reason.as_ref().map(Reason::message), want, "{json}");
        }
    }

    #[test]
    fn proposal_ids_differ_by_side_only() {
        let id = ProposalId::from_bytes([0xab; 32]);
        for side in [Side::Requestor, Side::Provider] {
            assert_eq!(ProposalId::read(&id.seen_from(side)), Some(id.clone()));
        }
        assert_eq!(ProposalId::read("R-12"), None);
    }
}
