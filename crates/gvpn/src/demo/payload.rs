//! A payload of the demo.

use std::net::IpAddr;

use gvpn_model::{AgreementId, DeployArgs, NodeId};
use gvpn_sdk::{Activity, AgreementRequest, Client, Network, Run};

use crate::failure::Outcome;

/// What a payload does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Serves HTTP, iperf3 and ssh.
    Server,
    /// Waits for commands.
    Client,
}

/// A running payload.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) name: String,
    pub(crate) node: NodeId,
    pub(crate) ip: IpAddr,
    activity: Activity,
    agreement: AgreementId,
}

const SERVE: &str = "hostname > /www/index.html && httpd -p 80 -h /www && iperf3 -s -D \
                     && /usr/sbin/sshd -f /etc/ssh/sshd_config";

impl Payload {
    /// The set-up sequence: agreement, activity, node, deploy, start.
    pub(crate) async fn deploy(
        client: &Client,
        network: &Network,
        node: NodeId,
        name: &str,
        ip: &str,
        image: &str,
        role: Role,
    ) -> Outcome<Self> {
        let agreement = client.agree(node, &AgreementRequest::image(image)).await?;
        let activity = client.start_activity(agreement.id).await?;
        let ip = network.add_node(node, ip).await?;
        let deploy = DeployArgs {
            net: vec![network.deployment(ip).await?],
            hostname: Some(name.to_owned()),
            ..DeployArgs::default()
        };
        activity.deploy_with(deploy).await?;
        let payload = Self { name: name.to_owned(), node, ip, activity, agreement: agreement.id };
        if role == Role::Server {
            payload.sh(SERVE).await?;
        }
        Ok(payload)
    }

    /// Runs a shell command line in it; its standard output.
    pub(crate) async fn sh(&self, line: &str) -> Outcome<String> {
        Ok(self.activity.run(&Run::shell(line)).await?.stdout)
    }

    /// Ends it and its agreement.
    pub(crate) async fn remove(&self, client: &Client) -> Outcome {
        self.activity.destroy().await?;
        Ok(client.terminate_agreement(self.agreement, "the demo is over").await?)
    }
}
