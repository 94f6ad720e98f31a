//! The play: what a requestor does, and what must hold.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use gvpn_sdk::{Client, Error, Network, NetworkRequest};

use crate::{
    demo::{
        board::Board,
        image::{self, Image},
        interrupt, leftovers, measure,
        payload::{Payload, Role},
        proxy,
        stage::Stage,
    },
    failure::{Failure, Outcome},
};

const PREFIX: &str = "192.168.7.0/24";
/// How long a change may take to show.
const PATIENCE: Duration = Duration::from_secs(15);

/// Everything between the curtain's rise and fall.
pub(crate) async fn run(stage: &Stage, board: &Board, keep: bool) -> Outcome {
    let client = stage.requestor.client()?;
    for provider in &stage.providers {
        let start = Instant::now();
        let found = client.ping(provider.node).await;
        let found = found.map(|_| millis(start.elapsed())).map_err(Failure::from);
        board.check(&format!("{} is found by its NodeId", provider.name), found);
    }
    let dir = stage.dir().to_owned();
    let image = tokio::task::spawn_blocking(move || image::build(&dir)).await;
    let image = image.map_err(Failure::new)??;
    board.pass("an image from this machine's programs", size(&image.file));

    let request =
        NetworkRequest { name: Some("demo".to_owned()), ..NetworkRequest::prefix(PREFIX) };
    let start = Instant::now();
    let network = client.create_network_with(&request).await?;
    board.pass("a network", format!("{PREFIX}, {}", millis(start.elapsed())));
    let set = Set { stage, board, client, network, image };
    let mut payloads = Vec::new();
    let outcome = tokio::select! {
        outcome = set.act(&mut payloads) => outcome,
        // Payloads that are on their way end with the daemons.
        () = interrupt::requested() => return interrupt::check(),
    };
    if let Err(failure) = &outcome {
        board.fail("the main job ran to its end", failure);
    }
    if keep {
        board.title(&stage.instructions());
        interrupt::requested().await;
    }
    set.strike(payloads).await
}

struct Set<'a> {
    stage: &'a Stage,
    board: &'a Board,
    client: Client,
    network: Network,
    image: Image,
}

impl Set<'_> {
    async fn act(&self, payloads: &mut Vec<Payload>) -> Outcome {
        let url = self.client.publish(&self.image.file).await?;
        let cast = [
            ("web-1", 0, "192.168.7.11", Role::Server),
            ("web-2", 1, "192.168.7.12", Role::Server),
            ("client", 0, "192.168.7.21", Role::Client),
        ];
        let start = Instant::now();
        let deployed = try_join_all(
            cast.map(|(name, provider, ip, role)| self.deploy(name, provider, ip, &url, role)),
        )
        .await?;
        let took = start.elapsed();
        payloads.extend(deployed);
        let [web_1, web_2, client] = &payloads[..] else {
            return Err(Failure::new("three payloads were to be deployed"));
        };
        self.board.pass(
            "two web servers and a client are deployed",
            format!("on 2 providers, {:.1} s with the image's transfer", took.as_secs_f32()),
        );

        let board = self.board;
        board.check("ICMP between payloads", measure::icmp(client, web_2).await);
        board.check("TCP between payloads", measure::tcp(client, web_2).await);
        board.check("TCP between payloads of one provider", measure::tcp(client, web_1).await);
        board.check("UDP between payloads", measure::udp(client, web_2).await);
        board.check("256 MB file between payloads", measure::file(client, web_2).await);
        board.check("a program of this machine in the network", self.exec(web_2).await);
        board.check("ssh through the gate", self.ssh(web_2).await);
        board.check("a port nobody listens on is refused", self.refused(web_2).await);

        let late = self.late(&url, client).await?;
        payloads.push(late);
        let [web_1, web_2, client, web_3] = &payloads[..] else { return Ok(()) };
        let servers = [web_1, web_2, web_3];
        board.check("http-proxy over all providers", proxy::check(&self.network, &servers).await);
        board.check("a removed node is gone", self.removed(web_1, web_2, client).await);
        Ok(())
    }

    async fn deploy(
        &self,
        name: &str,
        provider: usize,
        ip: &str,
        image: &str,
        role: Role,
    ) -> Outcome<Payload> {
        let node = self.stage.providers[provider].node;
        Payload::deploy(&self.client, &self.network, node, name, ip, image, role)
            .await
            .map_err(|e| Failure::new(format!("{name} on provider-{}: {e}", provider + 1)))
    }

    /// A node that joins after the others were deployed.
    async fn late(&self, url: &str, client: &Payload) -> Outcome<Payload> {
        let web_3 = self.deploy("web-3", 2, "192.168.7.13", url, Role::Server).await?;
        let start = Instant::now();
        let reached = loop {
            match client.sh("ping -c1 -W1 192.168.7.13").await {
                Ok(_) => break Ok(format!("{} after its start", millis(start.elapsed()))),
                Err(e) if start.elapsed() > PATIENCE => break Err(e),
                Err(_) => {}
            }
        };
        self.board.check("a node added late is reached by the others", reached);
        Ok(web_3)
    }

    async fn removed(&self, stays: &Payload, goes: &Payload, client: &Payload) -> Outcome<String> {
        let start = Instant::now();
        self.network.remove_node(goes.node).await?;
        let ping = format!("ping -c1 -W1 {}", goes.ip);
        while client.sh(&ping).await.is_ok() {
            if start.elapsed() > PATIENCE {
                return Err(Failure::new(format!("{} still answers", goes.name)));
            }
        }
        let took = start.elapsed().saturating_sub(Duration::from_secs(1));
        match self.network.connect(goes.ip, 80).await {
            Ok(_) => return Err(Failure::new("the gate still reaches it")),
            Err(Error::NotFound(_) | Error::Timeout(_) | Error::Refused(_)) => {}
            Err(e) => return Err(e.into()),
        }
        client.sh(&format!("ping -c1 -W2 {}", stays.ip)).await?;
        Ok(format!("{}, {} still answers", millis(took), stays.name))
    }

    async fn exec(&self, to: &Payload) -> Outcome<String> {
        let ping =
            ["exec", "demo", "--", "ping", "-c1", "-W5", &to.ip.to_string()].map(str::to_owned);
        let output = self.gvpn(&ping).await?;
        let time = output.split("time=").nth(1).and_then(|t| t.lines().next()).unwrap_or("");
        Ok(format!("gvpn exec ping: {time}"))
    }

    async fn ssh(&self, to: &Payload) -> Outcome<String> {
        let exe = std::env::current_exe().map_err(Failure::io("this program's path"))?;
        let proxy = format!(
            "ProxyCommand={} --data-dir {} connect demo %h %p",
            exe.display(),
            self.stage.requestor.home.dir().display()
        );
        let start = Instant::now();
        let output = tokio::process::Command::new("ssh")
            .args(["-o", &proxy, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-F", "/dev/null"])
            .args(["-o", "ConnectTimeout=15", "-i"])
            .arg(&self.image.ssh_key)
            .args([&format!("root@{}", to.ip), "hostname"])
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(Failure::io("cannot start ssh"))?;
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || name != to.name {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Failure::new(format!("{}: `{name}` {said}", output.status)));
        }
        Ok(format!("a stock client, {}", millis(start.elapsed())))
    }

    async fn refused(&self, to: &Payload) -> Outcome<String> {
        let start = Instant::now();
        match self.network.connect(to.ip, 9).await {
            Err(Error::Refused(_)) => Ok(format!("HTTP 502, {}", millis(start.elapsed()))),
            Err(e) => Err(e.into()),
            Ok(_) => Err(Failure::new("it connected")),
        }
    }

    async fn gvpn(&self, args: &[String]) -> Outcome<String> {
        let exe = std::env::current_exe().map_err(Failure::io("this program's path"))?;
        let output = tokio::process::Command::new(exe)
            .arg("--data-dir")
            .arg(self.stage.requestor.home.dir())
            .args(args)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(Failure::io("cannot start gvpn"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::new(format!("gvpn {} ended with {}: {said}", args.join(" "), output.status)))
    }

    /// Removes everything, and looks whether it is gone.
    async fn strike(&self, payloads: Vec<Payload>) -> Outcome {
        let start = Instant::now();
        let mut wrong = Vec::new();
        for payload in &payloads {
            if let Err(e) = payload.remove(&self.client).await {
                wrong.push(format!("{}: {e}", payload.name));
            }
        }
        if let Err(e) = self.network.remove().await {
            wrong.push(format!("the network: {e}"));
        }
        let networks = self.client.networks().await?.len();
        let running = self
            .client
            .activities()
            .await?
            .into_iter()
            .filter(|a| !matches!(a.state.0, gvpn_model::ActivityState::Terminated));
        let running = running.count();
        if networks + running > 0 {
            wrong.push(format!("{networks} networks and {running} activities are still listed"));
        }
        let removed = match wrong.is_empty() {
            true => Ok(format!("{} payloads, {}", payloads.len(), millis(start.elapsed()))),
            false => Err(Failure::new(wrong.join("; "))),
        };
        self.board.check("activities and network are removed", removed);
        let clean = clean(self.stage.dir(), start).await;
        self.board.check("providers keep nothing of them", clean);
        Ok(())
    }
}

async fn clean(dir: &Path, start: Instant) -> Outcome<&'static str> {
    loop {
        let processes = leftovers::activity_processes(dir);
        let files = leftovers::activity_files(dir);
        if processes.is_empty() && files.is_empty() {
            return Ok("no process, no file");
        }
        if start.elapsed() > PATIENCE {
            return Err(Failure::new(format!("{processes:?} {files:?}")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

fn size(file: &Path) -> String {
    let bytes = file.metadata().map_or(0, |m| m.len());
    format!("{:.0} MB", bytes as f64 / 1e6)
}
