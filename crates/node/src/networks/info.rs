//! What is asked and told about a network.

use std::net::IpAddr;

use gvpn_model::{NetworkId, NodeId, addressing};
use gvpn_roster::OwnerBook;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::NodeError;

/// What a new network shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkSpec {
    /// CIDR, or an address with `mask`.
    pub ip: String,
    /// Dotted mask when `ip` is bare.
    pub mask: Option<String>,
    /// Gateway address; the first host when missing.
    pub gateway: Option<String>,
    /// Further prefixes, such as one of the other family.
    pub prefixes: Vec<String>,
    /// Name for people and DNS; the id serves when missing.
    pub name: Option<String>,
    /// Inner MTU.
    pub mtu: Option<u16>,
}

/// A network as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NetworkInfo {
    /// Its id.
    pub id: NetworkId,
    /// Its owner.
    pub owner: NodeId,
    /// Its name.
    pub name: Option<String>,
    /// Its prefixes; the first is the one that Golem's clients see.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub prefixes: Vec<IpNet>,
    /// Its gateway addresses, in the order of the prefixes.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub gateways: Vec<IpAddr>,
    /// Its inner MTU.
    pub mtu: u16,
    /// The roster's number.
    pub epoch: u64,
    /// The roster's hash, hexadecimal.
    pub hash: String,
    /// How many members it has.
    pub members: usize,
}

/// One address of one node in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// The node.
    pub id: NodeId,
    /// Its address.
    pub ip: IpAddr,
}

/// How far a member node has followed a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The node.
    pub node: NodeId,
    /// The last epoch it acknowledged.
    pub epoch: Option<u64>,
    /// Whether that is the present roster, by epoch and hash.
    pub current: bool,
    /// Why the last attempt to reach it failed.
    pub error: Option<String>,
}

impl NetworkSpec {
    /// Reads the texts; the book checks the rest.
    pub(crate) fn check(&self) -> Result<gvpn_roster::NetworkSpec, NodeError> {
        let prefix = addressing::parse_prefix(&self.ip, self.mask.as_deref())?;
        let gateway = self.gateway.as_deref().filter(|text| !text.trim().is_empty());
        let gateway = gateway.map(addressing::parse_host).transpose()?;
        let mut subnets = vec![(prefix, gateway)];
        for text in &self.prefixes {
            subnets.push((addressing::parse_prefix(text, None)?, None));
        }
        Ok(gvpn_roster::NetworkSpec { name: self.name.clone(), subnets, mtu: self.mtu })
    }
}

impl NetworkInfo {
    pub(crate) fn of(book: &OwnerBook) -> Self {
        let roster = book.roster();
        let subnets = &roster.settings.subnets;
        Self {
            id: roster.network,
            owner: roster.owner,
            name: roster.settings.name.clone(),
            prefixes: subnets.iter().map(|s| s.prefix).collect(),
            gateways: subnets.iter().map(|s| s.gateway).collect(),
            mtu: roster.settings.mtu,
            epoch: roster.epoch,
            hash: hex::encode(book.hash().as_bytes()),
            members: roster.members.len(),
        }
    }
}
