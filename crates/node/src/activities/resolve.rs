//! Networks that a script names, as the provider finds them in the owners' rosters.

use std::net::IpAddr;

use gvpn_exeunit::NetworkConfig;
use gvpn_model::{ActivityId, DeployArgs, ExeCommand, ExeScript, NetworkId, NodeId, addressing};
use gvpn_roster::{Member, Roster};

use crate::{
    NodeError,
    networks::{Local, network_config},
};

/// A network that a deployment joins, and where.
pub(crate) struct Wanted {
    pub(crate) network: NetworkId,
    pub(crate) ip: IpAddr,
    pub(crate) config: NetworkConfig,
}

/// Whose payload wants in.
#[derive(Clone, Copy)]
pub(crate) struct Applicant {
    pub(crate) me: NodeId,
    pub(crate) requestor: NodeId,
    pub(crate) activity: ActivityId,
}

/// Ids of all networks that a script names, whether they make sense or not.
pub(crate) fn named(script: &ExeScript) -> Vec<NetworkId> {
    let deploys = script.iter().filter_map(deploy);
    deploys.flat_map(|d| &d.net).filter_map(|net| net.id.parse().ok()).collect()
}

/// Finds every network of a script's `deploy` commands; the error names the command and says why.
pub(crate) fn networks(
    script: &ExeScript,
    local: &Local,
    applicant: Applicant,
) -> Result<Vec<Wanted>, (usize, NodeError)> {
    let mut wanted = Vec::new();
    for (index, command) in script.iter().enumerate() {
        let Some(deploy) = deploy(command) else { continue };
        for net in &deploy.net {
            let found = one(&net.id, &net.node_ip, local, applicant);
            wanted.push(found.map_err(|error| (index, error))?);
        }
    }
    Ok(wanted)
}

/// The member that an applicant may be at `ip`.
pub(crate) fn member_at(
    roster: &Roster,
    ip: IpAddr,
    applicant: Applicant,
) -> Result<&Member, NodeError> {
    let Applicant { me, requestor, activity } = applicant;
    let network = roster.network;
    if roster.owner != requestor {
        return Err(NodeError::forbidden(format!(
            "network {network} belongs to {}, not to this activity's requestor {requestor}",
            roster.owner
        )));
    }
    let member = roster.holder(ip).filter(|member| member.node == me).ok_or_else(|| {
        NodeError::invalid(format!(
            "address {ip} in network {network} was not given to provider {me}: add the node with \
             that address first (POST /net/{network}/nodes)"
        ))
    })?;
    match member.activity {
        Some(other) if other != activity => Err(NodeError::invalid(format!(
            "address {ip} in network {network} is reserved for activity {other}"
        ))),
        _ => Ok(member),
    }
}

/// The roster of a network that this node is in.
pub(crate) fn roster(
    local: &Local,
    network: NetworkId,
    me: NodeId,
) -> Result<std::sync::Arc<Roster>, NodeError> {
    local.get(network).ok_or_else(|| {
        NodeError::invalid(format!(
            "provider {me} was not added to network {network}: add it first \
             (POST /net/{network}/nodes)"
        ))
    })
}

fn one(id: &str, node_ip: &str, local: &Local, applicant: Applicant) -> Result<Wanted, NodeError> {
    let network = id.parse().map_err(NodeError::invalid)?;
    let ip = addressing::parse_host(node_ip)?;
    let roster = roster(local, network, applicant.me)?;
    let member = member_at(&roster, ip, applicant)?;
    Ok(Wanted { network, ip, config: network_config(&roster, member) })
}

fn deploy(command: &ExeCommand) -> Option<&DeployArgs> {
    match command {
        ExeCommand::Deploy(deploy) => Some(deploy),
        _ => None,
    }
}
