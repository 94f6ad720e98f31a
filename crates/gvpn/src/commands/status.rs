//! `gvpn init`, `gvpn status`, `gvpn ping`.

use gvpn_model::NodeId;
use serde_json::json;

use crate::{
    context::{Common, Context, node_id},
    failure::{Failure, Outcome},
    show,
};

/// Makes the data directory.
pub(crate) fn init(common: &Common) -> Outcome {
    let home = common.home()?;
    let identity = home.init()?;
    let made = json!({
        "nodeId": identity.node_id(),
        "dataDir": home.dir(),
        "config": home.config_file(),
    });
    show::value(common.json, &made, |made| {
        show::fields(made) + "\nNext: `gvpn daemon`, and in another terminal `gvpn status`.\n"
    })
}

/// Shows the daemon's state and its peers.
pub(crate) async fn status(context: &Context) -> Outcome {
    let status = context.client.status().await?;
    let peers = context.client.peers().await?;
    let mut all = serde_json::to_value(status).map_err(Failure::new)?;
    all["api"] = json!(context.client.url());
    all["peers"] = peers;
    show::value(context.json, &all, show::fields)
}

/// Options of `gvpn ping`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ping {
    /// The node.
    #[arg(value_parser = node_id)]
    node: NodeId,
}

impl Ping {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let report = context.client.ping(self.node).await?;
        let report = serde_json::Value::Object(report.report);
        show::value(context.json, &report, show::fields)
    }
}
