//! `gvpn activity`.

use std::{
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
};

use gvpn_model::{BatchEventKind, DeployArgs, ExeCommand, ExeScript, NodeId};
use gvpn_sdk::{Activity as Handle, ActivityInfo, Batch, Run};
use serde_json::json;

use crate::{
    commands::{agreement::Terms, progress::Progress},
    context::{Context, node_id},
    failure::{Failure, Outcome},
    show,
};

/// Commands on payloads.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Activity {
    /// Start a payload: agreement, activity, network, deploy and start in one.
    Start(Start),
    /// Run a program in a payload; its output and exit code become this command's.
    Exec {
        /// Activity: id or beginning of one.
        activity: String,
        /// The program, by its path in the payload, and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run an ExeScript (JSON) from a file, or from standard input with `-`.
    Script {
        /// Activity: id or beginning of one.
        activity: String,
        /// The file.
        file: PathBuf,
    },
    /// Copy a file into a payload or out of it: `ACTIVITY:/path` on one side.
    Copy {
        /// From here,
        from: String,
        /// to here.
        to: String,
    },
    /// List the activities that this node requested, or with --provider those that it runs.
    Ls {
        /// Those that this node runs for others.
        #[arg(long)]
        provider: bool,
    },
    /// Show an activity's state and what it has used.
    Show {
        /// Activity: id or beginning of one.
        activity: String,
    },
    /// End an activity.
    Stop {
        /// Activities: ids or beginnings of ids.
        #[arg(required = true)]
        activities: Vec<String>,
    },
}

/// Options of `gvpn activity start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// The provider.
    #[arg(value_parser = node_id)]
    provider: NodeId,
    #[command(flatten)]
    terms: Terms,
    /// Network and address: NETWORK=IP; may be repeated.
    #[arg(long, value_name = "NETWORK=IP", value_parser = network_and_ip)]
    net: Vec<(String, IpAddr)>,
    /// The payload's host name.
    #[arg(long)]
    hostname: Option<String>,
    /// A line of /etc/hosts: NAME=IP; may be repeated.
    #[arg(long, value_name = "NAME=IP", value_parser = pair)]
    host: Vec<(String, String)>,
    /// Environment of its programs: NAME=VALUE; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
}

impl Activity {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Start(start) => start.run(context).await,
            Self::Exec { activity, command } => {
                let activity = context.activity(&activity).await?;
                let mut words = command.into_iter();
                let program = Run::new(words.next().unwrap_or_default()).args(words);
                follow(context, &activity.exec(&[program.streamed()]).await?).await
            }
            Self::Script { activity, file } => {
                let activity = context.activity(&activity).await?;
                follow(context, &activity.exec(&read_script(&file)?).await?).await
            }
            Self::Copy { from, to } => copy(context, &from, &to).await,
            Self::Ls { provider } => list(context, provider).await,
            Self::Show { activity } => {
                let activity = context.activity(&activity).await?;
                let state = activity.state().await?;
                let usage = activity.usage().await?;
                let all = json!({ "id": activity.id(), "state": state.0, "usage": usage });
                show::value(context.json, &all, show::fields)
            }
            Self::Stop { activities } => {
                let mut stopped = Vec::new();
                for activity in activities {
                    let activity = context.activity(&activity).await?;
                    let _progress = Progress::start(context, format!("ending {}", activity.id()));
                    activity.destroy().await?;
                    stopped.push(activity.id());
                }
                show::value(context.json, &json!({ "stopped": stopped }), |_| {
                    stopped.iter().map(|id| format!("stopped {id}\n")).collect()
                })
            }
        }
    }
}

impl Start {
    async fn run(self, context: &Context) -> Outcome {
        let progress = Progress::start(context, "asking the provider for an agreement");
        let request = self.terms.request(context).await?;
        let agreement = context.client.agree(self.provider, &request).await?;
        progress.now("starting the activity");
        let activity = match context.client.start_activity(agreement.id).await {
            Ok(activity) => activity,
            Err(e) => {
                let _ = context.client.terminate_agreement(agreement.id, "it did not start").await;
                return Err(e.into());
            }
        };
        if let Err(failure) = self.deploy(context, &activity, &progress).await {
            let _ = activity.destroy().await;
            let _ = context.client.terminate_agreement(agreement.id, "it did not deploy").await;
            return Err(failure);
        }
        drop(progress);
        let started = json!({
            "activityId": activity.id(),
            "agreementId": agreement.id,
            "provider": self.provider,
            "ips": self.net.iter().map(|(_, ip)| ip).collect::<Vec<_>>(),
        });
        show::value(context.json, &started, |_| format!("{}\n", activity.id()))
    }

    async fn deploy(&self, context: &Context, activity: &Handle, progress: &Progress) -> Outcome {
        let mut deploy = DeployArgs {
            hostname: self.hostname.clone(),
            hosts: self.host.iter().cloned().collect(),
            env: self.env.iter().cloned().collect(),
            ..DeployArgs::default()
        };
        for (network, ip) in &self.net {
            let network = context.network(network).await?;
            network.add_node(self.provider, &ip.to_string()).await?;
            deploy.net.push(network.deployment(*ip).await?);
        }
        progress.now("deploying the image and starting the payload");
        Ok(activity.deploy_with(deploy).await?)
    }
}

/// Prints a batch's output as it comes; the exit code of the last command becomes this process's.
async fn follow(context: &Context, batch: &Batch) -> Outcome {
    let mut events = batch.events().await?;
    let mut failed = None;
    while let Some(event) = events.next().await? {
        if context.json {
            show::print(&(serde_json::to_string(&event).map_err(Failure::new)? + "\n"))?;
        }
        match event.kind {
            BatchEventKind::Stdout(text) if !context.json => show::print(&text)?,
            BatchEventKind::Stderr(text) if !context.json => {
                // Standard error may be closed; the output still matters.
                let _ = std::io::stderr().write_all(text.as_bytes());
            }
            BatchEventKind::Finished { return_code, message } if return_code != 0 => {
                failed = Some((return_code, message));
            }
            _ => {}
        }
    }
    match failed {
        None => Ok(()),
        Some((code, message)) => {
            if let Some(message) = message.filter(|_| !context.json) {
                eprintln!("gvpn: {message}");
            }
            Err(Failure::silent(u8::try_from(code).ok().filter(|c| *c != 0).unwrap_or(1)))
        }
    }
}

fn read_script(file: &Path) -> Outcome<ExeScript> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).map_err(Failure::io("standard input"))?
    } else {
        std::fs::read_to_string(file)
            .map_err(Failure::io(format!("cannot read {}", file.display())))?
    };
    ExeCommand::parse_script(&text).map_err(Failure::new)
}

async fn copy(context: &Context, from: &str, to: &str) -> Outcome {
    let _progress = Progress::start(context, format!("{from} -> {to}"));
    let (activity, url, inward) = match (inside(from), inside(to)) {
        (None, Some((activity, path))) => {
            let url = context.client.publish(Path::new(from)).await?;
            (context.activity(activity).await?, (url, format!("container:{path}")), true)
        }
        (Some((activity, path)), None) => {
            let url = context.client.receive(Path::new(to)).await?;
            (context.activity(activity).await?, (url, format!("container:{path}")), false)
        }
        _ => {
            return Err(Failure::new("copy needs a payload's path on one side and only one")
                .hint("gvpn activity copy FILE ACTIVITY:/path, or the other way round"));
        }
    };
    let (url, path) = url;
    let moved = match inward {
        true => activity.transfer(&url, &path).await,
        false => activity.transfer(&path, &url).await,
    };
    let _ = context.client.unpublish(&url).await;
    Ok(moved?)
}

/// `ACTIVITY:/path`.
fn inside(text: &str) -> Option<(&str, &str)> {
    let (activity, path) = text.split_once(':')?;
    let is_id = !activity.is_empty() && activity.bytes().all(|b| b.is_ascii_hexdigit());
    (is_id && path.starts_with('/')).then_some((activity, path))
}

async fn list(context: &Context, provider: bool) -> Outcome {
    let all = if provider {
        context.client.running_activities().await?
    } else {
        context.client.activities().await?
    };
    show::value(context.json, &all, |all| {
        let row = |a: &ActivityInfo| {
            let other = if provider { a.requestor } else { a.provider };
            let state = format!("{:?}", a.state.0);
            [a.id.to_string(), state, other.to_string(), a.reason.clone().unwrap_or_default()]
        };
        let other = if provider { "requestor" } else { "provider" };
        show::table(["id", "state", other, "reason"], all.iter().map(row))
    })
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn network_and_ip(text: &str) -> Result<(String, IpAddr), String> {
    let (network, ip) = text.split_once('=').ok_or("expected NETWORK=IP")?;
    let ip = ip.parse().map_err(|_| format!("`{ip}` is not an IP address"))?;
    Ok((network.to_owned(), ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payloads_path_is_told_from_a_file() {
        assert_eq!(inside("00ff:/etc/hosts"), Some(("00ff", "/etc/hosts")));
        for text in ["file", "./a:/b", "00ff:relative", ":/etc", "c:\\x"] {
            assert_eq!(inside(text), None, "{text}");
        }
    }
}
