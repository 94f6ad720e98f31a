//! `gvpn exec`, `gvpn shell`: programs of this machine inside a network.

use std::process::Command;

use crate::{
    context::Context,
    failure::{Failure, Outcome},
};

/// Options of `gvpn exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let mut words = self.command.iter();
        let program = words.next().cloned().unwrap_or_default();
        let mut command = Command::new(&program);
        command.args(words);
        enter(context, &self.network, command, &program).await
    }
}

/// Options of `gvpn shell`.
#[derive(Debug, clap::Args)]
pub(crate) struct Shell {
    /// Network: id, beginning of an id, or name.
    network: String,
}

impl Shell {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
        let mut command = Command::new(&shell);
        command.env("GVPN_NETWORK", &self.network);
        enter(context, &self.network, command, &shell).await
    }
}

/// Runs `command` with the requestor's address in the network, and ends as it does.
async fn enter(context: &Context, network: &str, mut command: Command, program: &str) -> Outcome {
    let network = context.network(network).await?;
    let pid = network.namespace().await?;
    gvpn_vnic::enter_process(pid, &mut command, true).map_err(|e| {
        Failure::io(format!("cannot join the namespace of process {pid}"))(e)
            .hint("the daemon must run on this machine, under the same user")
    })?;
    // The signals of the terminal are for the program; this process only waits for it.
    let status = tokio::task::spawn_blocking(move || command.status())
        .await
        .map_err(Failure::new)?
        .map_err(Failure::io(format!("cannot run `{program}` in the network")))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::silent(u8::try_from(code).unwrap_or(1))),
        None => Err(Failure::new(format!("`{program}` was ended by a signal: {status}"))),
    }
}
