//! Networks: the owner's, with their books, and memberships in others'.

use std::net::IpAddr;

use gvpn_model::{ActivityId, MemberId, NetworkId, NodeId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::NodeError;

/// The network service.
pub struct Networks {}

/// What a new network shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkSpec {
    /// CIDR, or an address with `mask`.
    pub ip: String,
    /// Dotted mask when `ip` is bare.
    pub mask: Option<String>,
    /// Gateway address; the first host when missing.
    pub gateway: Option<String>,
    /// Name for people and DNS; made from the id when missing.
    pub name: Option<String>,
    /// Inner MTU.
    pub mtu: Option<u16>,
}

/// A network as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInfo {
    /// Its id.
    pub id: NetworkId,
    /// Its owner.
    pub owner: NodeId,
    /// Its name.
    pub name: String,
    /// Its prefixes; the first is the one that Golem's clients see.
    pub prefixes: Vec<IpNet>,
    /// Its gateway addresses, in the order of the prefixes.
    pub gateways: Vec<IpAddr>,
    /// Its inner MTU.
    pub mtu: u16,
    /// The roster's number.
    pub epoch: u64,
    /// The roster's hash, hexadecimal.
    pub hash: String,
}

/// One address of one node in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// The node.
    pub id: NodeId,
    /// Its address.
    pub ip: IpAddr,
}

/// A member as our own endpoints show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberInfo {
    /// Its number in the network.
    pub id: MemberId,
    /// Its node.
    pub node: NodeId,
    /// The activity it belongs to, where known.
    pub activity: Option<ActivityId>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its name.
    pub name: Option<String>,
}

/// What a new member shall be, or what shall change in one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MemberSpec {
    /// Its node.
    pub node: Option<NodeId>,
    /// Its addresses; the next free one when empty.
    pub ips: Option<Vec<IpAddr>>,
    /// Its name; the empty text removes it.
    pub name: Option<String>,
}

/// How far a member node has followed a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl Networks {
    /// Makes a network owned by this node.
    ///
    /// # Errors
    /// `Invalid` for a prefix or gateway that makes no sense.
    pub async fn create(&self, _spec: NetworkSpec) -> Result<NetworkInfo, NodeError> {
        unimplemented!()
    }

    /// The networks this node owns.
    pub fn list(&self) -> Vec<NetworkInfo> {
        unimplemented!()
    }

    /// One network this node owns.
    ///
    /// # Errors
    /// `NotFound`, or `Forbidden` when it is someone else's.
    pub fn get(&self, _id: NetworkId) -> Result<NetworkInfo, NodeError> {
        unimplemented!()
    }

    /// Removes a network from every member.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn remove(&self, _id: NetworkId) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// The owner's own addresses, with the prefix length.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn addresses(&self, _id: NetworkId) -> Result<Vec<IpNet>, NodeError> {
        unimplemented!()
    }

    /// Gives the owner an address.
    ///
    /// # Errors
    /// As [`get`](Self::get); `Invalid` for an impossible address, `Conflict` for a taken one.
    pub async fn add_address(&self, _id: NetworkId, _ip: &str) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// Every address of every node.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn nodes(&self, _id: NetworkId) -> Result<Vec<NodeRow>, NodeError> {
        unimplemented!()
    }

    /// Adds a node with an address; repeating it changes nothing.
    ///
    /// # Errors
    /// As [`add_address`](Self::add_address).
    pub async fn add_node(
        &self,
        _id: NetworkId,
        _node: NodeId,
        _ip: &str,
    ) -> Result<MemberInfo, NodeError> {
        unimplemented!()
    }

    /// Removes a node with all its addresses.
    ///
    /// # Errors
    /// As [`get`](Self::get); `NotFound` for a node that is not in the network.
    pub async fn remove_node(&self, _id: NetworkId, _node: NodeId) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// The members.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn members(&self, _id: NetworkId) -> Result<Vec<MemberInfo>, NodeError> {
        unimplemented!()
    }

    /// How far each member node has followed.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn progress(&self, _id: NetworkId) -> Result<Vec<Progress>, NodeError> {
        unimplemented!()
    }
}
