//! The command line.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    commands::{
        activity, agreement, doctor, gate, image, inside, keys, look, member, net, node, provider,
        rule, status,
    },
    context::Common,
    daemon, demo,
    failure::{Failure, Outcome},
    logging, relay, show,
};

/// A private network for payloads on other people's computers.
#[derive(Debug, Parser)]
#[command(name = "gvpn", version, about, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the data directory: identity, settings, app key.
    Init,
    /// Run a node: requestor, provider or both.
    Daemon(daemon::Options),
    /// Run a relay: introduces nodes to each other, forwards where no direct path exists.
    Relay(relay::Options),
    /// Show the daemon's state and its peers.
    Status,
    /// Measure the path to a node: direct or relayed, round-trip time, MTU.
    Ping(status::Ping),
    /// Look whether this machine can do what a node needs, and what to do where it cannot.
    Doctor(doctor::Doctor),
    /// Networks that this node owns.
    #[command(subcommand)]
    Net(net::Net),
    /// Nodes of a network.
    #[command(subcommand)]
    Node(node::Node),
    /// Members of a running network: addresses, names, moves, limits, quarantine.
    #[command(subcommand)]
    Member(member::Member),
    /// Rules on what may be sent in a network.
    #[command(subcommand)]
    Rule(rule::Rule),
    /// Tell what would happen to a packet, and why.
    Trace(look::Trace),
    /// Capture a network's packets as pcapng.
    Capture(look::Capture),
    /// Agreements with providers.
    #[command(subcommand)]
    Agreement(agreement::Agreement),
    /// Payloads on providers.
    #[command(subcommand)]
    Activity(activity::Activity),
    /// Lead a local port to a payload's port.
    Forward(gate::Forward),
    /// A local SOCKS5 proxy into a network.
    Socks(gate::Socks),
    /// Connect standard input and output to a payload's port.
    Connect(gate::Connect),
    /// Log in to a payload that runs sshd, with the ssh client of this machine.
    Ssh(gate::Ssh),
    /// Run a program of this machine inside a network.
    Exec(inside::Exec),
    /// A shell of this machine inside a network.
    Shell(inside::Shell),
    /// What this node offers: price lists, and whom it works for.
    #[command(subcommand)]
    Provider(provider::Provider),
    /// Images that the daemon serves to providers.
    #[command(subcommand)]
    Image(image::Image),
    /// App keys of the daemon.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Run the main job on this machine: nodes, a network, payloads, the gate, a check for each.
    Demo(demo::Options),
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Reads the command line and does as it says.
pub(crate) fn run() -> ExitCode {
    // A reader that goes away (`gvpn .. | head`) ends the program quietly, as it does others.
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let common = cli.common;
    match cli.command {
        Command::Init => status::init(&common),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gvpn", &mut script);
            show::print(&String::from_utf8_lossy(&script))
        }
        Command::Demo(options) => demo::run(&options),
        Command::Daemon(options) => block_on(daemon::run(common, options)),
        Command::Relay(options) => block_on(relay::run(common, options)),
        Command::Doctor(doctor) => {
            logging::start("error", false);
            block_on(async move { doctor.run(&common).await })
        }
        command => {
            logging::start("warn", false);
            block_on(ask(common, command))
        }
    }
}

/// Commands that talk to a daemon.
async fn ask(common: Common, command: Command) -> Outcome {
    let context = common.context()?;
    match command {
        Command::Status => status::status(&context).await,
        Command::Ping(ping) => ping.run(&context).await,
        Command::Net(net) => net.run(&context).await,
        Command::Node(node) => node.run(&context).await,
        Command::Member(member) => member.run(&context).await,
        Command::Rule(rule) => rule.run(&context).await,
        Command::Trace(trace) => trace.run(&context).await,
        Command::Capture(capture) => capture.run(&context).await,
        Command::Agreement(agreement) => agreement.run(&context).await,
        Command::Activity(activity) => activity.run(&context).await,
        Command::Forward(forward) => forward.run(&context).await,
        Command::Socks(socks) => socks.run(&context).await,
        Command::Connect(connect) => connect.run(&context).await,
        Command::Ssh(ssh) => ssh.run(&context, &common).await,
        Command::Exec(exec) => exec.run(&context).await,
        Command::Shell(shell) => shell.run(&context).await,
        Command::Provider(provider) => provider.run(&context).await,
        Command::Image(image) => image.run(&context).await,
        Command::Keys(keys) => keys.run(&context).await,
        Command::Init
        | Command::Completions { .. }
        | Command::Daemon(_)
        | Command::Demo(_)
        | Command::Doctor(_)
        | Command::Relay(_) => Ok(()),
    }
}

fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("cannot start the async runtime"))?;
    let outcome = runtime.block_on(work);
    // A thread may hang in a read of standard input: it must not hold the process back.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
