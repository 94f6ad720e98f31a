//! How a node takes part in the market.

use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};

/// How a node takes part in the market.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MarketConfig {
    /// The node's name for people, shown in its offers.
    pub node_name: String,
    /// The market segment: demands and offers of different ones do not meet.
    pub subnet: String,
    /// Further payment platforms that a provider's offers name, beside the known ones.
    pub platforms: Vec<String>,
    /// Providers to ask for their offers directly, beside the relays.
    pub providers: Vec<NodeId>,
}

impl Default for MarketConfig {
    fn default() -> Self {
        let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self {
            node_name: name.filter(|n| !n.is_empty()).unwrap_or_else(|| "gvpn".to_owned()),
            subnet: "public".to_owned(),
            platforms: Vec::new(),
            providers: Vec::new(),
        }
    }
}
