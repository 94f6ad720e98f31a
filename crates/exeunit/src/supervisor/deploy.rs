//! The `deploy` command.

use std::net::IpAddr;

use gvpn_model::{ActivityState, DeployArgs, DeployNetwork, NetworkId, addressing};
use gvpn_runtime::NetworkConfig;

use super::{Unit, volumes};

/// What the runtimes of Golem print on `deploy`; clients read it.
const DEPLOYED: &str = r#"{"valid": {"Ok": ""}, "vols": [], "startMode": "blocking"}"#;

impl Unit {
    /// Brings the payload's file system and networks into being; nothing stays when one of them fails.
    pub(super) async fn deploy(
        &self,
        args: &DeployArgs,
        known: &[NetworkConfig],
    ) -> Result<String, String> {
        let wanted = wanted_networks(args, known)?;
        let hosts = hosts(args)?;
        let mut networks = self.networks.lock().await;
        if let Some(hostname) = &args.hostname {
            networks.hostname = checked_hostname(hostname)?.to_owned();
        }
        check_env(args)?;
        let volumes = volumes::paths(&args.volumes)?;
        networks.hosts = hosts;
        *self.env.borrow_mut() = args.env.clone();
        *self.volumes.borrow_mut() = volumes;
        self.payload.set_env(args.env.clone());
        let payload = self.payload_with_image().await?;
        self.runtime.deploy(payload).await.map_err(|e| e.to_string())?;
        for network in wanted {
            if let Err(reason) = networks.set(self, network).await {
                networks.leave_all(self).await;
                return Err(reason);
            }
        }
        networks.rename(self).await?;
        self.set_state(ActivityState::Deployed, None).await;
        Ok(DEPLOYED.to_owned())
    }
}

fn wanted_networks(
    args: &DeployArgs,
    known: &[NetworkConfig],
) -> Result<Vec<NetworkConfig>, String> {
    let mut wanted: Vec<NetworkConfig> = vec![];
    for network in &args.net {
        let config = find(network, known)?;
        if wanted.iter().any(|other| other.network == config.network) {
            return Err(format!("network {} is named twice", network.id));
        }
        wanted.push(config.clone());
    }
    Ok(wanted)
}

fn find<'a>(
    network: &DeployNetwork,
    known: &'a [NetworkConfig],
) -> Result<&'a NetworkConfig, String> {
    let id: NetworkId = network.id.parse().map_err(|e| format!("deploy: {e}"))?;
    let ip = addressing::parse_host(&network.node_ip)
        .map_err(|e| format!("network {id}: nodeIp: {e}"))?;
    let Some(config) = known.iter().find(|config| config.network == id) else {
        return Err(format!(
            "network {id}: this activity was not added to it; add its node first (POST /net/{id}/nodes)"
        ));
    };
    if !config.addresses.iter().any(|address| address.addr() == ip) {
        let given: Vec<String> = config.addresses.iter().map(|a| a.addr().to_string()).collect();
        let given = given.join(", ");
        return Err(format!("network {id}: nodeIp {ip} is not this activity's address ({given})"));
    }
    Ok(config)
}

fn hosts(args: &DeployArgs) -> Result<Vec<(String, IpAddr)>, String> {
    let host = |(name, address): (&String, &String)| {
        let name = checked_hostname(name)?.to_owned();
        let address = addressing::parse_host(address).map_err(|e| format!("hosts: {name}: {e}"))?;
        Ok((name, address))
    };
    args.hosts.iter().map(host).collect()
}

/// A name that may stand in `/etc/hosts` and be given to `sethostname(2)`.
fn checked_hostname(name: &str) -> Result<&str, String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() <= 64 && name.split('.').all(is_label) {
        Ok(name)
    } else {
        Err(format!("`{name}` is not a host name"))
    }
}

fn check_env(args: &DeployArgs) -> Result<(), String> {
    for (name, value) in &args.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("`{name}` is not the name of an environment variable"));
        }
    }
    Ok(())
}
