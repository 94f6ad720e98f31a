//! `gvpn forward`, `socks`, `connect`, `ssh`: a network's gate for programs of this machine.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
};

use gvpn_sdk::Network;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::{
    context::{Common, Context},
    daemon::stop_signal,
    failure::{Failure, Outcome},
    show,
};

/// Options of `gvpn forward`.
#[derive(Debug, clap::Args)]
pub(crate) struct Forward {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// `LOCAL:IP:PORT`, as in `8080:192.168.0.2:80`; LOCAL may be ADDR:PORT or 0 for any free port;
    /// may be repeated.
    #[arg(required = true, value_parser = rule)]
    rules: Vec<Rule>,
}

/// One forwarded port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    local: SocketAddr,
    remote: SocketAddr,
}

impl Forward {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let network = context.network(&self.network).await?;
        let stop = stop_signal()?;
        let mut open = Vec::new();
        for Rule { local, remote } in self.rules {
            let forward =
                gvpn_sdk::Forward::start(network.clone(), local, remote.ip(), remote.port())
                    .await?;
            let row = json!({ "local": forward.local_addr(), "remote": remote });
            show::value(context.json, &row, |_| format!("{} -> {remote}\n", forward.local_addr()))?;
            open.push(forward);
        }
        stop.await;
        Ok(())
    }
}

/// Options of `gvpn socks`.
#[derive(Debug, clap::Args)]
pub(crate) struct Socks {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:1080")]
    listen: SocketAddr,
}

impl Socks {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let network = context.network(&self.network).await?;
        let stop = stop_signal()?;
        let socks = gvpn_sdk::Socks::start(network, self.listen).await?;
        let row = json!({ "listen": socks.local_addr() });
        show::value(context.json, &row, |_| format!("socks5h://{}\n", socks.local_addr()))?;
        stop.await;
        Ok(())
    }
}

/// Options of `gvpn connect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// The payload: address or member name.
    host: String,
    /// Its port.
    port: u16,
}

impl Connect {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let network = context.network(&self.network).await?;
        let ip = address(&network, &self.host).await?;
        let stream = network.connect(ip, self.port).await?;
        let (mut from, mut to) = tokio::io::split(stream);
        let (mut input, mut output) = (tokio::io::stdin(), tokio::io::stdout());
        let up = async {
            tokio::io::copy(&mut input, &mut to).await?;
            to.shutdown().await?;
            // The payload may have more to say.
            std::future::pending::<std::io::Result<()>>().await
        };
        let down = async {
            tokio::io::copy(&mut from, &mut output).await?;
            output.flush().await
        };
        tokio::select! {
            ended = up => ended,
            ended = down => ended,
        }
        .map_err(Failure::io("the connection broke"))
    }
}

/// Options of `gvpn ssh`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ssh {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// The payload: an address or a name, with `USER@` before it where needed.
    destination: String,
    /// The port of its sshd.
    #[arg(short, long, default_value_t = 22)]
    port: u16,
    /// Further arguments of ssh: options, a command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Ssh {
    /// Becomes `ssh`, with this program as its way to the payload.
    pub(crate) async fn run(self, context: &Context, common: &Common) -> Outcome {
        let network = context.network(&self.network).await?;
        let host = self.destination.rsplit('@').next().unwrap_or(&self.destination);
        let ip = address(&network, host).await?;
        let exe = std::env::current_exe().map_err(Failure::io("this program's path"))?;
        let mut proxy = vec![exe.display().to_string()];
        if let Some(dir) = &common.data_dir {
            proxy.extend(["--data-dir".to_owned(), dir.display().to_string()]);
        }
        proxy.extend(["--api-url".to_owned(), context.client.url().to_owned()]);
        proxy.extend(["connect".into(), network.id().to_string(), ip.to_string(), "%p".into()]);
        let proxy: Vec<String> = proxy.iter().map(|word| quoted(word)).collect();
        let mut ssh = std::process::Command::new("ssh");
        ssh.arg("-o").arg(format!("ProxyCommand={}", proxy.join(" ")));
        // Two networks may use one address: host keys are known by network and address.
        ssh.arg("-o").arg(format!("HostKeyAlias={}.{}", ip, network.id()));
        ssh.arg("-p").arg(self.port.to_string()).arg(&self.destination).args(&self.args);
        // Not on the command line, where every user of the machine could read it.
        if let Some(key) = &common.app_key {
            ssh.env("GVPN_APPKEY", key);
        }
        let error = ssh.exec();
        Err(Failure::io("cannot start ssh")(error).hint("install openssh-client"))
    }
}

/// The address that `host` is, or that the member of that name has.
async fn address(network: &Network, host: &str) -> Outcome<IpAddr> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let members = network.members().await?;
    members
        .iter()
        .find(|m| m.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(host)))
        .and_then(|m| m.ips.first().copied())
        .ok_or_else(|| {
            Failure::new(format!("`{host}` is no address and no member's name"))
                .hint(format!("`gvpn net show {}` lists the members", network.id()))
        })
}

/// The word in single quotes where a shell would do something to it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn rule(text: &str) -> Result<Rule, String> {
    let wrong = || format!("`{text}` is not LOCAL:IP:PORT, such as 8080:192.168.0.2:80");
    // The remote end is the longest ending that is an address: IPv6 ones are in brackets.
    let split = text.char_indices().filter(|(_, c)| *c == ':').find_map(|(at, _)| {
        let remote: SocketAddr = text[at + 1..].parse().ok()?;
        Some((&text[..at], remote))
    });
    let (local, remote) = split.ok_or_else(wrong)?;
    let local = match local.parse::<u16>() {
        Ok(port) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        Err(_) => local.parse().map_err(|_| wrong())?,
    };
    Ok(Rule { local, remote })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_rules_are_read() {
        let cases = [
            ("8080:192.168.0.2:80", "127.0.0.1:8080", "192.168.0.2:80"),
            ("0:[fd00::2]:80", "127.0.0.1:0", "[fd00::2]:80"),
            ("0.0.0.0:90:10.0.0.2:91", "0.0.0.0:90", "10.0.0.2:91"),
            ("[::1]:90:[fd00::2]:91", "[::1]:90", "[fd00::2]:91"),
        ];
        for (text, local, remote) in cases {
            let want = Rule { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
            assert_eq!(rule(text), Ok(want), "{text}");
        }
        for text in ["", "80", "80:web:80", "a:10.0.0.2:91", "80:10.0.0.2"] {
            assert!(rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("/usr/bin/gvpn"), "/usr/bin/gvpn");
        assert_eq!(quoted("/my dir/it's"), r"'/my dir/it'\''s'");
    }
}
