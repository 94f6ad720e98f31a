//! What every command has: the daemon's client, the output form, and names made into ids.

use gvpn_model::{ActivityId, AgreementId, NetworkId, NodeId};
use gvpn_sdk::{Activity, Client, Network};

use crate::{
    failure::{Failure, Outcome},
    home::Home,
};

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// Directory of identity, state and settings [default: ~/.local/share/gvpn].
    #[arg(long, env = "GVPN_DATA_DIR", global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<std::path::PathBuf>,
    /// The daemon's API [default: the running daemon of the data directory].
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) api_url: Option<String>,
    /// App key for the API [default: GVPN_APPKEY, YAGNA_APPKEY, or the data directory's].
    #[arg(long, global = true, value_name = "KEY", hide_env_values = true)]
    pub(crate) app_key: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A command's surroundings.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) json: bool,
}

impl Common {
    pub(crate) fn home(&self) -> Outcome<Home> {
        Home::new(self.data_dir.clone())
    }

    pub(crate) fn context(&self) -> Outcome<Context> {
        let home = self.home()?;
        let env = |name| std::env::var(name).ok().filter(|v: &String| !v.is_empty());
        // A data directory that was named goes before whatever the environment says of another.
        let named = self.data_dir.is_some() && home.api_url().is_some();
        let url = self
            .api_url
            .clone()
            .or_else(|| home.api_url().filter(|_| named))
            .or_else(|| env("GVPN_API_URL"))
            .or_else(|| env("YAGNA_API_URL"))
            .or_else(|| home.api_url())
            .unwrap_or_else(|| gvpn_sdk::DEFAULT_URL.to_owned());
        let key = self
            .app_key
            .clone()
            .or_else(|| home.app_key().filter(|_| named))
            .or_else(|| env("GVPN_APPKEY"))
            .or_else(|| env("YAGNA_APPKEY"))
            .or_else(|| home.app_key());
        let client = Client::new(&url, key.as_deref())?;
        Ok(Context { client, json: self.json })
    }
}

impl Context {
    /// The network of this id, beginning of an id, or name.
    pub(crate) async fn network(&self, text: &str) -> Outcome<Network> {
        if let Ok(id) = text.parse::<NetworkId>() {
            return Ok(self.client.network(id));
        }
        let networks = self.client.networks().await?;
        let named = networks.iter().filter(|n| n.name.as_deref() == Some(text));
        let begun = networks.iter().filter(|n| n.id.to_string().starts_with(text));
        let id = one("network", text, named.map(|n| n.id), begun.map(|n| n.id))
            .map_err(|f| f.hint("`gvpn net ls` shows the networks of this daemon"))?;
        Ok(self.client.network(id))
    }

    /// The activity of this id, or beginning of one.
    pub(crate) async fn activity(&self, text: &str) -> Outcome<Activity> {
        if let Ok(id) = text.parse::<ActivityId>() {
            return Ok(self.client.activity(id));
        }
        let all = self.client.activities().await?;
        let begun = all.iter().filter(|a| a.id.to_string().starts_with(text));
        let id = one("activity", text, [], begun.map(|a| a.id))
            .map_err(|f| f.hint("`gvpn activity ls` shows the activities of this daemon"))?;
        Ok(self.client.activity(id))
    }

    /// The agreement of this id, or beginning of one.
    pub(crate) async fn agreement(&self, text: &str) -> Outcome<AgreementId> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let all = self.client.agreements().await?;
        let begun = all.iter().filter(|a| a.id.to_string().starts_with(text));
        one("agreement", text, [], begun.map(|a| a.id))
            .map_err(|f| f.hint("`gvpn agreement ls` shows the agreements of this daemon"))
    }
}

/// A node id, with a hint on where to find one.
pub(crate) fn node_id(text: &str) -> Result<NodeId, String> {
    text.parse().map_err(|e| format!("{e}; `gvpn status` on the node's machine shows its id"))
}

fn one<T: Copy + PartialEq>(
    what: &str,
    text: &str,
    exact: impl IntoIterator<Item = T>,
    begun: impl IntoIterator<Item = T>,
) -> Outcome<T> {
    let exact: Vec<T> = exact.into_iter().collect();
    let found = if exact.is_empty() { begun.into_iter().collect() } else { exact };
    match found.as_slice() {
        [id] if !text.is_empty() => Ok(*id),
        [] => Err(Failure::new(format!("no {what} is called `{text}` or has an id beginning so"))),
        several => Err(Failure::new(format!("`{text}` means {} {what}s", several.len()))),
    }
}
