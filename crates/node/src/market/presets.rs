//! Price lists of a provider.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use gvpn_market::{MAX_OFFERS, Offer, provider::Preset};
use parking_lot::RwLock;

use super::Markets;
use crate::{NodeError, ProviderPolicy, core::Core};

const KIND: &str = "preset";

/// The node's presets. As long as none was ever made, each runtime of the policy has one that asks
/// for nothing.
pub(super) struct Presets {
    kept: RwLock<Vec<Preset>>,
}

impl Presets {
    pub(super) fn open(core: &Arc<Core>) -> Result<Self, NodeError> {
        Ok(Self { kept: RwLock::new(core.store.documents(KIND)?) })
    }
}

impl Markets {
    /// The provider's presets.
    pub fn presets(&self) -> Vec<Preset> {
        let kept = self.inner.presets.kept.read().clone();
        if !kept.is_empty() {
            return kept;
        }
        let runtimes = self.inner.agreements.policy().map(|p| p.runtimes).unwrap_or_default();
        runtimes
            .into_iter()
            .map(|runtime| Preset { name: runtime.clone(), runtime, ..Preset::default() })
            .collect()
    }

    /// Replaces the provider's policy, and what is offered with it. What differs from the
    /// configuration is kept and goes before it at the next start, too; that nothing is accepted
    /// any more (`None`) is not.
    ///
    /// # Errors
    /// `Internal` when the policy cannot be kept; it is as it was then.
    pub fn set_policy(&self, policy: Option<ProviderPolicy>) -> Result<(), NodeError> {
        let requestors =
            |policy: &Option<ProviderPolicy>| policy.as_ref().map(|p| p.requestors.clone());
        let before = self.inner.agreements.policy();
        let others = before.is_some() && requestors(&before) != requestors(&policy);
        self.inner.agreements.set_policy(policy)?;
        // Who was refused before is told of the offers again.
        if others {
            self.agent_renews()
        } else {
            self.agent_looks()
        }
        Ok(())
    }

    /// Forgets the changes of the policy: it is as configured again, which is returned.
    ///
    /// # Errors
    /// `Conflict` for a node that is not configured to be a provider; `Internal` as above.
    pub fn reset_policy(&self) -> Result<ProviderPolicy, NodeError> {
        let configured = self.inner.core.config.provider.clone();
        let configured = configured
            .ok_or_else(|| NodeError::conflict("this node is not configured to be a provider"))?;
        self.set_policy(Some(configured.clone()))?;
        Ok(configured)
    }

    /// The offers that are published.
    pub fn published_offers(&self) -> Vec<Offer> {
        self.look(|market| market.offer_sheet(Utc::now(), TimeDelta::zero()).offers)
    }

    /// Makes a preset, or replaces the one of its name.
    ///
    /// # Errors
    /// `Invalid` for prices that are none and for a runtime that is not offered; `Conflict` where
    /// more presets would be active than offers can be published.
    pub fn put_preset(&self, preset: Preset) -> Result<(), NodeError> {
        preset.check().map_err(NodeError::invalid)?;
        let policy = self.inner.agreements.policy();
        let policy = policy.ok_or_else(|| NodeError::conflict("this node is not a provider"))?;
        if !policy.runtimes.contains(&preset.runtime) {
            let (runtime, offered) = (&preset.runtime, policy.runtimes.join(", "));
            return Err(NodeError::invalid(format!(
                "runtime `{runtime}` is not offered here, only: {offered}"
            )));
        }
        let mut all = self.presets();
        match all.iter_mut().find(|p| p.name == preset.name) {
            Some(old) => *old = preset,
            None => all.push(preset),
        }
        if all.iter().filter(|p| p.active).count() > MAX_OFFERS {
            return Err(NodeError::conflict(format!(
                "{MAX_OFFERS} presets are active already, which is the most: deactivate one"
            )));
        }
        self.keep_presets(all)
    }

    /// Removes a preset. The last one cannot be removed, only be made inactive.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for the last one.
    pub fn remove_preset(&self, name: &str) -> Result<(), NodeError> {
        let mut all = self.presets();
        let before = all.len();
        all.retain(|p| p.name != name);
        if all.len() == before {
            return Err(NodeError::not_found(format!("there is no preset `{name}`")));
        }
        if all.is_empty() {
            return Err(NodeError::conflict(format!(
                "`{name}` is the last preset: make it inactive if nothing shall be offered"
            )));
        }
        self.inner.core.store.remove_document(KIND, name)?;
        self.keep_presets(all)
    }

    fn keep_presets(&self, all: Vec<Preset>) -> Result<(), NodeError> {
        for preset in &all {
            self.inner.core.store.put_document(KIND, &preset.name, preset)?;
        }
        *self.inner.presets.kept.write() = all;
        self.agent_looks();
        Ok(())
    }
}
