//! Networks.

use std::net::IpAddr;

use gvpn_model::{ActivityId, DeployNetwork, MemberId, NetworkId, NodeId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Client, Error, GateStream, RawFrames};

/// What a new network shall be.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRequest {
    /// CIDR, or an address with `mask`.
    pub ip: String,
    /// Dotted mask when `ip` is bare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// Gateway address; the first host when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Further prefixes, such as one of the other family.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Name for people and DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Inner MTU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

impl NetworkRequest {
    /// A network with this CIDR prefix.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { ip: prefix.into(), ..Self::default() }
    }
}

/// A network as its owner sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInfo {
    /// Its id.
    pub id: NetworkId,
    /// Its owner.
    pub owner: NodeId,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its prefixes; the first is the one that Golem's clients see.
    pub prefixes: Vec<String>,
    /// Its gateway addresses, in the order of the prefixes.
    pub gateways: Vec<IpAddr>,
    /// Its inner MTU.
    pub mtu: u16,
    /// The roster's number.
    pub epoch: u64,
    /// The roster's hash.
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

/// A member of a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its number.
    pub id: MemberId,
    /// The node it is on.
    pub node: NodeId,
    /// The activity it belongs to.
    #[serde(default)]
    pub activity: Option<ActivityId>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// What newer daemons say beside.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// What a new member shall be, or what shall change in one: what is `None` stays.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberChange {
    /// The node it is on, or moves to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// All its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ips: Option<Vec<IpAddr>>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How far a member node has followed a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The node.
    pub node: NodeId,
    /// The last epoch it acknowledged.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Whether that is the present roster.
    pub current: bool,
    /// Why the last attempt to reach it failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// An open connection through the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionRow {
    /// IP protocol: 6 for TCP, 255 for raw frames.
    pub protocol: u16,
    /// The requestor's address.
    pub local_ip: String,
    /// The requestor's port.
    pub local_port: u16,
    /// The payload's address.
    pub remote_ip: String,
    /// The payload's port.
    pub remote_port: u16,
}

/// A network that the daemon owns.
#[derive(Debug, Clone)]
pub struct Network {
    client: Client,
    id: NetworkId,
}

impl Network {
    pub(crate) fn new(client: Client, id: NetworkId) -> Self {
        Self { client, id }
    }

    /// Its id.
    pub fn id(&self) -> NetworkId {
        self.id
    }

    /// Its present state.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn info(&self) -> Result<NetworkInfo, Error> {
        self.client.http().get(&self.own("")).await
    }

    /// Removes it from every member.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove(&self) -> Result<(), Error> {
        self.client.http().delete(&self.golem("")).await
    }

    /// The requestor's own addresses, in CIDR form.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn addresses(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Row {
            ip: String,
        }
        let rows: Vec<Row> = self.client.http().get(&self.golem("/addresses")).await?;
        Ok(rows.into_iter().map(|row| row.ip).collect())
    }

    /// Gives the requestor an address.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an impossible address, [`Error::Conflict`] for a taken one.
    pub async fn add_address(&self, ip: &str) -> Result<(), Error> {
        self.client.http().post(&self.golem("/addresses"), &json!({ "ip": ip })).await
    }

    /// Every address of every node.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, Error> {
        self.client.http().get(&self.golem("/nodes")).await
    }

    /// Adds a node with an address, and gives the address back. Members learn of it at once.
    ///
    /// # Errors
    /// As [`add_address`](Self::add_address).
    pub async fn add_node(&self, node: NodeId, ip: &str) -> Result<IpAddr, Error> {
        let address: IpAddr =
            ip.parse().map_err(|_| Error::Invalid(format!("`{ip}` is not an IP address")))?;
        let body = json!({ "id": node, "ip": ip });
        let () = self.client.http().post(&self.golem("/nodes"), &body).await?;
        Ok(address)
    }

    /// Removes a node with all its addresses.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_node(&self, node: NodeId) -> Result<(), Error> {
        self.client.http().delete(&self.golem(&format!("/nodes/{node}"))).await
    }

    /// The members.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        self.client.http().get(&self.own("/members")).await
    }

    /// Changes a member; its payload follows at once.
    ///
    /// # Errors
    /// [`Error::NotFound`], and as [`add_address`](Self::add_address).
    pub async fn change_member(
        &self,
        id: MemberId,
        change: &MemberChange,
    ) -> Result<Member, Error> {
        self.client.http().patch(&self.own(&format!("/members/{id}")), change).await
    }

    /// How far each member node has followed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn progress(&self) -> Result<Vec<Progress>, Error> {
        self.client.http().get(&self.own("/progress")).await
    }

    /// The connections that are open through the gate.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn connections(&self) -> Result<Vec<ConnectionRow>, Error> {
        self.client.http().get(&self.golem("/tcp")).await
    }

    /// The process whose namespaces are the gate's: joining them, a program of this machine is in
    /// the network.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Status`] where namespaces are forbidden.
    pub async fn namespace(&self) -> Result<u32, Error> {
        #[derive(Deserialize)]
        struct Row {
            pid: u32,
        }
        let row: Row = self.client.http().get(&self.own("/namespace")).await?;
        Ok(row.pid)
    }

    /// Connects to a payload's port through the gate.
    ///
    /// # Errors
    /// [`Error::Refused`] when nothing listens there, [`Error::Timeout`] when the payload does not
    /// answer.
    pub async fn connect(&self, ip: IpAddr, port: u16) -> Result<GateStream, Error> {
        GateStream::open(self.client.http(), &self.golem(&format!("/tcp/{ip}/{port}"))).await
    }

    /// Exchanges Ethernet frames with a payload, as the owner of the address `from`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address that is not the requestor's.
    pub async fn raw(&self, from: IpAddr, to: IpAddr) -> Result<RawFrames, Error> {
        RawFrames::open(self.client.http(), &self.golem(&format!("/raw/from/{from}/to/{to}"))).await
    }

    /// The part of a `deploy` that joins a payload to this network at `address`.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] when no prefix of the network holds `address`.
    pub async fn deployment(&self, address: IpAddr) -> Result<DeployNetwork, Error> {
        #[derive(Deserialize)]
        struct Row {
            ip: String,
            mask: String,
            gateway: Option<String>,
        }
        let row: Row = self.client.http().get(&self.golem("")).await?;
        let nodes = self.nodes().await?;
        Ok(DeployNetwork {
            id: self.id.to_string(),
            ip: row.ip,
            mask: Some(row.mask),
            gateway: row.gateway,
            node_ip: address.to_string(),
            nodes: nodes.into_iter().map(|n| (n.ip.to_string(), n.id.to_string())).collect(),
        })
    }

    fn golem(&self, rest: &str) -> String {
        format!("/net-api/v1/net/{}{rest}", self.id)
    }

    pub(crate) fn http(&self) -> &crate::http::Http {
        self.client.http()
    }

    pub(crate) fn own(&self, rest: &str) -> String {
        format!("/gvpn/v1/net/{}{rest}", self.id)
    }
}
