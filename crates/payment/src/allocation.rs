//! Allocations: money that a client puts aside for its documents.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Amount, platform::PlatformName};

/// Money put aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Its id.
    pub allocation_id: String,
    /// The payer's address.
    pub address: String,
    /// Driver, network and token.
    pub payment_platform: String,
    /// How much was put aside.
    pub total_amount: Amount,
    /// How much of it has been spent.
    pub spent_amount: Amount,
    /// How much of it is left.
    pub remaining_amount: Amount,
    /// When it was made.
    pub timestamp: DateTime<Utc>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DateTime<Utc>>,
    /// What clients say about deposits is kept, and means nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposit: Option<Value>,
    /// As `deposit`.
    pub make_deposit: bool,
}

/// What a client sends to put money aside. Fields that clients fill with empty text are not read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NewAllocation {
    /// The payer's address; the node's own when missing.
    #[serde(default)]
    pub address: Option<String>,
    /// On which platform.
    #[serde(default)]
    pub payment_platform: Option<PlatformName>,
    /// How much.
    pub total_amount: Amount,
    /// When it ends by itself.
    #[serde(default)]
    pub timeout: Option<DateTime<Utc>>,
    /// Kept as it is.
    #[serde(default)]
    pub deposit: Option<Value>,
    /// Kept as it is.
    #[serde(default)]
    pub make_deposit: bool,
}

/// What a client sends to change an allocation.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AllocationUpdate {
    /// How much it shall be.
    pub total_amount: Option<Amount>,
    /// When it shall end by itself.
    pub timeout: Option<DateTime<Utc>>,
    /// Kept as it is.
    pub deposit: Option<Value>,
}

/// What a demand has to say so that the requestor can pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MarketDecoration {
    /// Properties for the demand.
    pub properties: Vec<MarketProperty>,
    /// Constraints for the demand.
    pub constraints: Vec<String>,
}

/// A property of a [`MarketDecoration`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MarketProperty {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What a demand has to say to pay out of these allocations.
pub fn decorations(allocations: &[Allocation]) -> MarketDecoration {
    let mut properties: Vec<MarketProperty> = Vec::new();
    let mut platforms = Vec::new();
    for allocation in allocations {
        let key = format!("golem.com.payment.platform.{}.address", allocation.payment_platform);
        if !properties.iter().any(|p| p.key == key) {
            platforms.push(format!("({key}=*)"));
            properties.push(MarketProperty { key, value: allocation.address.clone() });
        }
    }
    let platform = match platforms.as_slice() {
        [one] => one.clone(),
        several => format!("(|{})", several.concat()),
    };
    properties.push(MarketProperty {
        key: "golem.com.payment.protocol.version".to_owned(),
        value: "3".to_owned(),
    });
    let version = "(golem.com.payment.protocol.version>1)".to_owned();
    MarketDecoration { properties, constraints: vec![platform, version] }
}
