//! The client.

use gvpn_model::{ActivityId, AgreementId, NetworkId, NodeId};

use crate::{
    Activity, ActivityInfo, Agreement, AgreementRequest, Error, Network, NetworkInfo,
    NetworkRequest, NodeStatus, PingReport, http::Http,
};

/// Where a daemon listens unless it is told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7465";

/// A connection to one daemon, with an app key. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: Http,
}

impl Client {
    /// A client of the daemon at `url` (`http://HOST:PORT`).
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn new(url: &str, app_key: Option<&str>) -> Result<Self, Error> {
        Ok(Self { http: Http::new(url, app_key.map(str::to_owned))? })
    }

    /// A client set up by `GVPN_API_URL` and `GVPN_APPKEY`, or else `YAGNA_API_URL` and
    /// `YAGNA_APPKEY`.
    ///
    /// # Errors
    /// [`Error::NoKey`], [`Error::Url`].
    pub fn from_env() -> Result<Self, Error> {
        let read = |names: [&str; 2]| {
            names.into_iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty()))
        };
        let url = read(["GVPN_API_URL", "YAGNA_API_URL"]);
        let key = read(["GVPN_APPKEY", "YAGNA_APPKEY"]).ok_or(Error::NoKey)?;
        Self::new(url.as_deref().unwrap_or(DEFAULT_URL), Some(&key))
    }

    /// The API's address.
    pub fn url(&self) -> &str {
        self.http.base()
    }

    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// What the daemon says of itself.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn status(&self) -> Result<NodeStatus, Error> {
        self.http.get("/gvpn/v1/status").await
    }

    /// The peers that the daemon knows, with the paths to them.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn peers(&self) -> Result<serde_json::Value, Error> {
        self.http.get("/gvpn/v1/peers").await
    }

    /// Measures the path to a node.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the node does not answer.
    pub async fn ping(&self, node: NodeId) -> Result<PingReport, Error> {
        self.http.get(&format!("/gvpn/v1/ping/{node}")).await
    }

    /// Makes a network from a CIDR prefix.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a prefix that makes no sense.
    pub async fn create_network(&self, prefix: &str) -> Result<Network, Error> {
        self.create_network_with(&NetworkRequest::prefix(prefix)).await
    }

    /// Makes a network.
    ///
    /// # Errors
    /// As [`create_network`](Self::create_network).
    pub async fn create_network_with(&self, request: &NetworkRequest) -> Result<Network, Error> {
        let info: NetworkInfo = self.http.post("/gvpn/v1/net", request).await?;
        Ok(self.network(info.id))
    }

    /// The networks that this node owns.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn networks(&self) -> Result<Vec<NetworkInfo>, Error> {
        self.http.get("/gvpn/v1/net").await
    }

    /// A handle of a network; whether it exists shows when it is used.
    pub fn network(&self, id: NetworkId) -> Network {
        Network::new(self.clone(), id)
    }

    /// Asks a provider for an agreement.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the provider's reason when it refuses.
    pub async fn agree(
        &self,
        provider: NodeId,
        request: &AgreementRequest,
    ) -> Result<Agreement, Error> {
        #[derive(serde::Serialize)]
        struct Body<'a> {
            provider: NodeId,
            #[serde(flatten)]
            request: &'a AgreementRequest,
        }
        self.http.post("/gvpn/v1/agreements", &Body { provider, request }).await
    }

    /// All agreements of this node, in both roles.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn agreements(&self) -> Result<Vec<Agreement>, Error> {
        self.http.get("/gvpn/v1/agreements").await
    }

    /// One agreement.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn agreement(&self, id: AgreementId) -> Result<Agreement, Error> {
        self.http.get(&format!("/gvpn/v1/agreements/{id}")).await
    }

    /// Ends an agreement and its activities.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn terminate_agreement(&self, id: AgreementId, reason: &str) -> Result<(), Error> {
        let body = serde_json::json!({ "reason": reason });
        self.http.post(&format!("/gvpn/v1/agreements/{id}/terminate"), &body).await
    }

    /// Starts an activity under an agreement.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the provider refuses, [`Error::Timeout`] when it does not answer.
    pub async fn start_activity(&self, agreement: AgreementId) -> Result<Activity, Error> {
        let body = serde_json::json!({ "agreementId": agreement });
        let info: ActivityInfo = self.http.post("/gvpn/v1/activities", &body).await?;
        Ok(self.activity(info.id))
    }

    /// The activities that this node requested.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn activities(&self) -> Result<Vec<ActivityInfo>, Error> {
        self.http.get("/gvpn/v1/activities").await
    }

    /// The activities that this node runs for others.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn running_activities(&self) -> Result<Vec<ActivityInfo>, Error> {
        self.http.get("/gvpn/v1/activities?role=provider").await
    }

    /// A handle of an activity; whether it exists shows when it is used.
    pub fn activity(&self, id: ActivityId) -> Activity {
        Activity::new(self.clone(), id)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url()).finish_non_exhaustive()
    }
}
