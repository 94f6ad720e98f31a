//! `gftp server`: what Golem's clients start to publish and receive files.
//!
//! Requests come as lines of JSON-RPC 2.0 on standard input, answers go to standard output. The
//! files themselves are served by the daemon: it is found as the clients find it, by
//! `YAGNA_API_URL` and `YAGNA_APPKEY` (`GVPN_API_URL` and `GVPN_APPKEY` go before), else in the data
//! directory of the `gvpn` command. `docs/golem-clients.md` describes the methods.

mod daemon;
mod server;

use std::process::ExitCode;

const USAGE: &str = "gftp moves files between a Golem client and its providers.

  gftp server     answer JSON-RPC lines on standard input: version, publish, close, receive, shutdown
  gftp --version  print the version";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    match command.as_deref() {
        Some("server") => serve(),
        Some("--version" | "-V") => {
            println!("gftp {}", server::VERSION);
            ExitCode::SUCCESS
        }
        Some("--help" | "-h") => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> ExitCode {
    let client = match daemon::find() {
        Ok(client) => client,
        Err(error) => {
            eprintln!("gftp: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gftp: {error}");
            return ExitCode::FAILURE;
        }
    };
    let input = tokio::io::BufReader::new(tokio::io::stdin());
    let served = runtime.block_on(server::run(client, input, tokio::io::stdout()));
    // A read of standard input may still be under way; it ends with the process.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gftp: {error}");
            ExitCode::FAILURE
        }
    }
}
