//! `gvpn provider`.

use gvpn_model::NodeId;
use gvpn_sdk::{Preset, ProviderPolicy};
use serde_json::json;

use crate::{
    context::{Context, node_id},
    failure::{Failure, Outcome},
    show,
};

/// Commands on what this node offers.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Provider {
    /// Price lists: one offer is made for each that is active.
    #[command(subcommand)]
    Preset(PresetCommand),
    /// Show whom the node works for, and how much it gives.
    Show,
    /// Change that. It goes before config.toml and the daemon's options, until `reset`.
    Set(Limits),
    /// Forget what was `set`: the policy is that of config.toml and the daemon's options.
    Reset,
}

/// Commands on price lists.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum PresetCommand {
    /// List them.
    Ls,
    /// Make one.
    Create {
        /// A name for it.
        name: String,
        #[command(flatten)]
        prices: Prices,
        /// Do not offer it yet.
        #[arg(long)]
        inactive: bool,
    },
    /// Change one; agreements in force keep their prices.
    Update {
        /// Its name.
        name: String,
        #[command(flatten)]
        prices: Prices,
    },
    /// Remove one.
    Rm {
        /// Its name.
        name: String,
    },
    /// Offer one.
    Activate {
        /// Its name.
        name: String,
    },
    /// Offer one no longer.
    Deactivate {
        /// Its name.
        name: String,
    },
}

/// What a price list says; what is not given stays, or is nothing in a new one.
#[derive(Debug, clap::Args)]
pub(crate) struct Prices {
    /// The runtime that it is for [default: the provider's first].
    #[arg(long)]
    runtime: Option<String>,
    /// For an agreement, whatever it uses.
    #[arg(long, value_name = "PRICE")]
    start: Option<f64>,
    /// For an hour of an activity's life.
    #[arg(long, value_name = "PRICE")]
    per_hour: Option<f64>,
    /// For an hour of CPU time.
    #[arg(long, value_name = "PRICE")]
    per_cpu_hour: Option<f64>,
}

/// What to change of the policy.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Limits {
    /// Most agreements at a time; 0 takes no more.
    #[arg(long, value_name = "N")]
    max_activities: Option<u32>,
    /// Work for these requestors only.
    #[arg(long, value_name = "NODE", num_args = 1.., value_parser = node_id, conflicts_with = "anybody")]
    only: Vec<NodeId>,
    /// Work for anybody.
    #[arg(long)]
    anybody: bool,
}

impl Provider {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Preset(command) => command.run(context).await,
            Self::Show => show_policy(context).await,
            Self::Set(limits) => {
                let changed = limits.apply(policy(context).await?);
                context.client.set_provider_policy(Some(&changed)).await?;
                show_policy(context).await
            }
            Self::Reset => {
                context.client.reset_provider_policy().await?;
                show_policy(context).await
            }
        }
    }
}

impl Limits {
    fn apply(self, mut policy: ProviderPolicy) -> ProviderPolicy {
        if let Some(most) = self.max_activities {
            policy.max_activities = most;
        }
        if self.anybody {
            policy.requestors = None;
        }
        if !self.only.is_empty() {
            policy.requestors = Some(self.only);
        }
        policy
    }
}

impl PresetCommand {
    async fn run(self, context: &Context) -> Outcome {
        let client = &context.client;
        let presets = client.presets().await?;
        let (preset, done) = match self {
            Self::Ls => return list(context, &presets),
            Self::Rm { name } => {
                client.remove_preset(&name).await?;
                let removed = json!({ "removed": name });
                return show::value(context.json, &removed, |_| format!("removed {name}\n"));
            }
            Self::Create { name, prices, inactive } => {
                if presets.iter().any(|p| p.name == name) {
                    let taken = Failure::new(format!("there is a preset `{name}` already"));
                    return Err(taken.hint("`gvpn provider preset update` changes it"));
                }
                let runtime = policy(context).await?.runtimes.into_iter().next();
                let new = Preset {
                    name,
                    runtime: runtime.unwrap_or_default(),
                    start: 0.0,
                    per_hour: 0.0,
                    per_cpu_hour: 0.0,
                    active: !inactive,
                };
                (prices.apply(new), "created")
            }
            Self::Update { name, prices } => (prices.apply(named(presets, &name)?), "updated"),
            Self::Activate { name } => {
                (Preset { active: true, ..named(presets, &name)? }, "activated")
            }
            Self::Deactivate { name } => {
                (Preset { active: false, ..named(presets, &name)? }, "deactivated")
            }
        };
        client.put_preset(&preset).await?;
        show::value(context.json, &preset, |p| format!("{done} {}\n", p.name))
    }
}

impl Prices {
    fn apply(self, preset: Preset) -> Preset {
        Preset {
            runtime: self.runtime.unwrap_or(preset.runtime),
            start: self.start.unwrap_or(preset.start),
            per_hour: self.per_hour.unwrap_or(preset.per_hour),
            per_cpu_hour: self.per_cpu_hour.unwrap_or(preset.per_cpu_hour),
            ..preset
        }
    }
}

fn named(presets: Vec<Preset>, name: &str) -> Outcome<Preset> {
    let names: Vec<_> = presets.iter().map(|p| p.name.clone()).collect();
    presets.into_iter().find(|p| p.name == name).ok_or_else(|| {
        Failure::new(format!("there is no preset `{name}`, only: {}", names.join(", ")))
    })
}

fn list(context: &Context, presets: &[Preset]) -> Outcome {
    show::value(context.json, &presets, |presets| {
        let row = |p: &Preset| {
            let active = if p.active { "yes" } else { "no" };
            let prices = [p.start, p.per_hour, p.per_cpu_hour].map(|price| price.to_string());
            let [start, hour, cpu] = prices;
            [p.name.clone(), p.runtime.clone(), active.to_owned(), start, hour, cpu]
        };
        let header = ["name", "runtime", "active", "start", "per hour", "per cpu hour"];
        show::table(header, presets.iter().map(row))
    })
}

async fn policy(context: &Context) -> Outcome<ProviderPolicy> {
    context.client.provider_policy().await?.ok_or_else(|| {
        Failure::new("this node is not a provider")
            .hint("start it with `gvpn daemon --role provider` or `--role both`")
    })
}

/// The policy, and which of it was `set`.
async fn show_policy(context: &Context) -> Outcome {
    let policy = policy(context).await?;
    let changes = context.client.provider_policy_changes().await?;
    show::value(context.json, &policy, |p| {
        let value = serde_json::to_value(p).unwrap_or_default();
        let for_whom = if p.requestors.is_none() { "works for: anybody\n" } else { "" };
        let names: Vec<_> = changes.keys().map(|name| name.replace('_', " ")).collect();
        let set = match names.as_slice() {
            [] => String::new(),
            names => format!(
                "set here, before the configuration (`gvpn provider reset` forgets it): {}\n",
                names.join(", ")
            ),
        };
        format!("{for_whom}{}{set}", show::fields(&value))
    })
}
