//! What the owner may ask for.

use std::{collections::BTreeMap, net::IpAddr};

use gvpn_model::{ActivityId, NodeId};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Limit, Policy, Route, Service};

/// A member to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MemberSpec {
    /// The node that it is on.
    pub node: NodeId,
    /// The activity whose payload it is, if known.
    #[serde(default)]
    pub activity: Option<ActivityId>,
    /// Its addresses; none means the next free one of every prefix.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ips: Vec<IpAddr>,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Its limit.
    #[serde(default)]
    pub limit: Limit,
    /// Its services.
    #[serde(default)]
    pub services: Vec<Service>,
}

impl MemberSpec {
    /// A member on `node` with these addresses and nothing else said.
    pub fn new(node: NodeId, ips: Vec<IpAddr>) -> Self {
        Self {
            node,
            activity: None,
            ips,
            name: None,
            groups: Vec::new(),
            limit: Limit::default(),
            services: Vec::new(),
        }
    }
}

/// A change of a member: what is `None` stays as it is. In JSON a `null` name or activity clears it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct MemberEdit {
    /// All its addresses from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub ips: Option<Vec<IpAddr>>,
    /// Addresses to add.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub add_ips: Vec<IpAddr>,
    /// Addresses to take away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub remove_ips: Vec<IpAddr>,
    /// The node that it is on. A move forgets the activity, unless the same edit names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Its activity.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<ActivityId>))]
    pub activity: Option<Option<ActivityId>>,
    /// Its name.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub name: Option<Option<String>>,
    /// Its groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Whether it is cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<bool>,
    /// Its services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
}

/// A change of a network's settings: what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct SettingsEdit {
    /// The network's name.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub name: Option<Option<String>>,
    /// The MTU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// All routes from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// All further names from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, Vec<String>>>))]
    pub hosts: Option<BTreeMap<String, Vec<IpAddr>>>,
    /// The whole policy from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

/// Tells a field that is there and `null` from one that is not there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
