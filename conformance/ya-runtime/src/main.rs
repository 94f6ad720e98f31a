//! A runtime built on Golem's published `ya-runtime-sdk`, as its authors build theirs: it runs programs
//! of the host in a network namespace whose only interface is the VPN's. Which kind of endpoint it
//! offers is said by the first argument of `start`.

mod tap;

use std::{path::PathBuf, process::Stdio};

use futures::FutureExt;
use structopt::StructOpt;
use tokio::io::AsyncReadExt;
use ya_runtime_sdk::{
    cli::{Command, CommandCli},
    error::Error,
    server::ContainerEndpoint,
    CreateNetwork, EmptyResponse, EndpointResponse, OutputResponse, ProcessIdResponse,
    RunProcess, Runtime, RuntimeDef, RuntimeMode,
};

type Context = ya_runtime_sdk::Context<Program>;

#[derive(StructOpt)]
#[allow(dead_code)] // what every runtime is given, used or not
struct Cli {
    #[structopt(long)]
    workdir: Option<PathBuf>,
    #[structopt(long)]
    task_package: Option<PathBuf>,
    #[structopt(long)]
    cpu_cores: Option<u32>,
    #[structopt(long)]
    mem_gib: Option<f64>,
    #[structopt(long)]
    storage_gib: Option<f64>,
    #[structopt(subcommand)]
    command: Command,
}

impl CommandCli for Cli {
    fn workdir(&self) -> Option<PathBuf> {
        self.workdir.clone()
    }

    fn command(&self) -> &Command {
        &self.command
    }
}

#[derive(Default)]
struct Program;

impl RuntimeDef for Program {
    const NAME: &'static str = "ya-runtime-program";
    const VERSION: &'static str = "0.1.0";
    type Cli = Cli;
    type Conf = ();
}

impl Runtime for Program {
    fn deploy<'a>(&mut self, _: &mut Context) -> OutputResponse<'a> {
        async { Ok(None) }.boxed_local()
    }

    fn start<'a>(&mut self, _: &mut Context) -> OutputResponse<'a> {
        async { Ok(None) }.boxed_local()
    }

    fn stop<'a>(&mut self, _: &mut Context) -> EmptyResponse<'a> {
        // The SDK answers, then waits for the end of its input: end soon after.
        async {
            tokio::task::spawn_local(async {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                std::process::exit(0);
            });
            Ok(())
        }
        .boxed_local()
    }

    fn run_command<'a>(
        &mut self,
        command: RunProcess,
        _: RuntimeMode,
        ctx: &mut Context,
    ) -> ProcessIdResponse<'a> {
        ctx.command(move |mut run| async move {
            let mut child = tokio::process::Command::new(&command.bin)
                .args(&command.args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(Error::from_string)?;
            let (mut stdout, mut stderr) = (vec![], vec![]);
            let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
            let _ = tokio::join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr));
            run.stdout(stdout).await;
            run.stderr(stderr).await;
            let status = child.wait().await.map_err(Error::from_string)?;
            match status.success() {
                true => Ok(()),
                false => Err(Error::from_string(status.to_string())),
            }
        })
    }

    fn join_network<'a>(
        &mut self,
        network: CreateNetwork,
        ctx: &mut Context,
    ) -> EndpointResponse<'a> {
        let kind = ctx.cli.command.args().first().cloned().unwrap_or_default();
        let workdir = ctx.cli.workdir.clone().unwrap_or_default();
        async move {
            tap::configure(&network.networks).map_err(Error::from_string)?;
            let endpoint: ContainerEndpoint =
                tap::serve(&kind, &workdir).map_err(Error::from_string)?;
            Ok(endpoint)
        }
        .boxed_local()
    }
}

fn main() {
    if std::env::args().any(|arg| arg == "start") {
        tap::prepare().expect("a network namespace");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Err(e) = runtime.block_on(ya_runtime_sdk::run::<Program>()) {
        eprintln!("{e:#}");
        std::process::exit(1);
    }
}
