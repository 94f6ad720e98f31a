//! What a provider offers: its policy and its price lists.

use serde::{Deserialize, Serialize};

use crate::{Client, Error, files::encode};

/// A price list. Prices are in the currency of the payment platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preset {
    /// Its name, unique on the node.
    pub name: String,
    /// The runtime that it is for.
    pub runtime: String,
    /// For an agreement, whatever it uses.
    pub start: f64,
    /// For an hour of an activity's life.
    pub per_hour: f64,
    /// For an hour of CPU time.
    pub per_cpu_hour: f64,
    /// Whether it is offered.
    pub active: bool,
}

/// Which agreements a provider accepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderPolicy {
    /// Requestors it works for; `None` for anybody.
    pub requestors: Option<Vec<gvpn_model::NodeId>>,
    /// How many activities it runs at once.
    pub max_activities: u32,
    /// Runtimes it offers.
    pub runtimes: Vec<String>,
    /// CPU cores for all activities together.
    pub cpu_cores: f64,
    /// Memory for all activities together, in GiB.
    pub mem_gib: f64,
    /// Storage for all activities together, in GiB.
    pub storage_gib: f64,
    /// What newer daemons say beside.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Client {
    /// The provider's policy; `None` if the node is no provider.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn provider_policy(&self) -> Result<Option<ProviderPolicy>, Error> {
        self.http().get("/gvpn/v1/provider").await
    }

    /// Replaces the policy. What differs from the daemon's configuration is kept, and goes before it
    /// at the next start too. `None` stops accepting until then.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_provider_policy(&self, policy: Option<&ProviderPolicy>) -> Result<(), Error> {
        self.http().put("/gvpn/v1/provider", &policy).await
    }

    /// Settings of the policy that were changed and go before the configuration's, by name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn provider_policy_changes(
        &self,
    ) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
        self.http().get("/gvpn/v1/provider/changes").await
    }

    /// Forgets these changes; the policy is as configured again, and returned.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the node is not configured to be a provider.
    pub async fn reset_provider_policy(&self) -> Result<ProviderPolicy, Error> {
        self.http().delete("/gvpn/v1/provider/changes").await
    }

    /// The provider's price lists.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn presets(&self) -> Result<Vec<Preset>, Error> {
        self.http().get("/gvpn/v1/provider/presets").await
    }

    /// Makes a price list, or replaces the one of its name. Offers change at once; agreements in
    /// force keep their prices.
    ///
    /// # Errors
    /// [`Error::Invalid`] for prices that are none, or a runtime that is not offered.
    pub async fn put_preset(&self, preset: &Preset) -> Result<(), Error> {
        self.http().post("/gvpn/v1/provider/presets", preset).await
    }

    /// Removes a price list.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] for the last one.
    pub async fn remove_preset(&self, name: &str) -> Result<(), Error> {
        self.http().delete(&format!("/gvpn/v1/provider/presets/{}", encode(name))).await
    }
}
