//! A runtime in a few lines: programs of the host, with no network but the payload's. The VPN is the
//! SDK's: nothing here knows of it.

use std::process::{Command, Stdio};

use gvpn_runtime::{AnyRuntime, Exit, Output, Payload, Program, Runtime, RuntimeError};

struct HostProcess;

impl Runtime for HostProcess {
    async fn deploy(&self, _payload: &Payload) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn start(&self, _payload: &Payload, _args: &[String]) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn run(
        &self,
        payload: &Payload,
        program: Program,
        output: Output,
    ) -> Result<Exit, RuntimeError> {
        let mut command = Command::new(&program.path);
        command.args(&program.args).envs(&program.env).stdin(Stdio::null());
        command.stdout(output.stdout).stderr(output.stderr);
        let enter = payload.namespace().await?.enter(&mut command, false);
        enter.map_err(RuntimeError::io("enter the namespace"))?;
        let mut command = tokio::process::Command::from(command);
        let child = command.kill_on_drop(true).spawn();
        // The command holds the pipes open: their end is how the output's reader knows.
        drop(command);
        let refused = |e: std::io::Error| RuntimeError::Program {
            program: program.path.clone(),
            reason: e.to_string(),
        };
        let status = child.map_err(refused)?.wait().await;
        let status = status.map_err(RuntimeError::io("wait for the program"))?;
        Ok(Exit::Code(status.code().unwrap_or(1)))
    }

    async fn stop(&self, _payload: &Payload) -> Result<(), RuntimeError> {
        Ok(())
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("ns-agent") => gvpn_vnic::agent_main(),
        _ => gvpn_exeunit::exeunit_main_with(|name| {
            (name == "host-process").then(|| AnyRuntime::new(HostProcess))
        }),
    }
}
