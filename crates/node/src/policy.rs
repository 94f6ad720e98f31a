//! The provider's policy: as configured, with the changes that were made while the daemon ran.

use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::{Map, Value};

use crate::{NodeError, ProviderPolicy, core::Core};

/// Kind and id of the document that keeps the changes.
const KEPT: (&str, &str) = ("provider-policy", "changes");

/// Settings of a [`ProviderPolicy`] that go before the configuration's, by name.
pub type PolicyChanges = Map<String, Value>;

/// The policy in use and what it is made of.
pub(crate) struct PolicyBook {
    core: Arc<Core>,
    now: RwLock<Option<ProviderPolicy>>,
}

impl PolicyBook {
    /// The configured policy with the changes that were kept.
    pub(crate) fn open(core: &Arc<Core>) -> Result<Self, NodeError> {
        let this = Self { core: core.clone(), now: RwLock::default() };
        let changes = this.changes()?;
        let configured = core.config.provider.as_ref();
        let now = configured.map(|policy| changed(policy, &changes).unwrap_or_else(|error| {
            tracing::warn!(%error, "the changes of the provider's policy are not understood: it is as configured");
            policy.clone()
        }));
        if now.is_some() && !changes.is_empty() {
            let changes = Value::Object(changes);
            tracing::info!(%changes, "the provider's policy has changes that go before the configuration");
        }
        *this.now.write() = now;
        Ok(this)
    }

    pub(crate) fn get(&self) -> Option<ProviderPolicy> {
        self.now.read().clone()
    }

    /// Replaces the policy. What differs from the configuration is kept; that the node is no
    /// provider (any more) is not.
    pub(crate) fn set(&self, policy: Option<ProviderPolicy>) -> Result<(), NodeError> {
        if let (Some(configured), Some(policy)) = (&self.core.config.provider, &policy) {
            let changes = differences(configured, policy)?;
            let (kind, id) = KEPT;
            if changes.is_empty() {
                self.core.store.remove_document(kind, id)?;
            } else {
                self.core.store.put_document(kind, id, &changes)?;
            }
        }
        *self.now.write() = policy;
        Ok(())
    }

    /// The changes that are kept.
    pub(crate) fn changes(&self) -> Result<PolicyChanges, NodeError> {
        let (kind, id) = KEPT;
        Ok(self.core.store.document(kind, id)?.unwrap_or_default())
    }
}

fn changed(
    configured: &ProviderPolicy,
    changes: &PolicyChanges,
) -> Result<ProviderPolicy, serde_json::Error> {
    let mut settings = serde_json::to_value(configured)?;
    for (name, value) in changes {
        settings[name] = value.clone();
    }
    serde_json::from_value(settings)
}

fn differences(
    configured: &ProviderPolicy,
    policy: &ProviderPolicy,
) -> Result<PolicyChanges, NodeError> {
    let settings = |policy| match serde_json::to_value(policy) {
        Ok(Value::Object(settings)) => Ok(settings),
        Ok(_) => Ok(Map::new()),
        Err(error) => Err(NodeError::internal(format!("the policy cannot be kept: {error}"))),
    };
    let configured = settings(configured)?;
    let mut changes = settings(policy)?;
    changes.retain(|name, value| configured.get(name) != Some(value));
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_goes_before_a_later_configuration_and_the_rest_follows_it() {
        let configured = ProviderPolicy { mem_gib: 1.0, ..ProviderPolicy::default() };
        let set = ProviderPolicy { max_activities: 3, ..configured.clone() };
        let changes = differences(&configured, &set).unwrap();
        assert_eq!(Value::Object(changes.clone()), serde_json::json!({ "max_activities": 3 }));
        let later = ProviderPolicy { mem_gib: 2.0, max_activities: 9, ..configured };
        let now = changed(&later, &changes).unwrap();
        assert_eq!((now.mem_gib, now.max_activities), (2.0, 3));
        assert!(differences(&set, &set).unwrap().is_empty());
    }
}
