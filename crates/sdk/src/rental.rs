//! A payload on a provider that the market found.

use std::{net::IpAddr, path::Path, time::Duration};

use gvpn_model::{AgreementId, DeployArgs, NodeId};

use crate::{Activity, Client, Error, Network, NewMember, Output, Run, market::Deal};

/// What a payload needs. Made by [`image`](Self::image), refined by its fields.
#[derive(Debug, Clone)]
pub struct Wish {
    /// A tag or hash that the daemon's registry knows, or a URL; `None` where the runtime brings
    /// its own.
    pub image: Option<String>,
    /// The runtime, as offers name it.
    pub runtime: String,
    /// What the runtime must be able to do; `vpn` is added for a payload in a network.
    pub capabilities: Vec<String>,
    /// Memory, at least, in GiB.
    pub mem_gib: f64,
    /// Storage, at least, in GiB.
    pub storage_gib: f64,
    /// Hardware threads, at least.
    pub cpu_threads: u32,
    /// The segment of the market.
    pub subnet: String,
    /// After this time the agreement ends by itself.
    pub lasts: Duration,
    /// How long to look for a provider.
    pub patience: Duration,
    /// The payload's host name, also its name in the network.
    pub hostname: Option<String>,
}

impl Wish {
    /// An image, with modest needs, for an hour.
    pub fn image(image: impl Into<String>) -> Self {
        Self {
            image: Some(image.into()),
            runtime: "vm".to_owned(),
            capabilities: Vec::new(),
            mem_gib: 0.5,
            storage_gib: 1.0,
            cpu_threads: 1,
            subnet: "public".to_owned(),
            lasts: Duration::from_secs(3600),
            patience: Duration::from_secs(60),
            hostname: None,
        }
    }

    /// Gives the payload a host name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }
}

/// A payload on a provider, deployed and started. End it with [`end`](Self::end); one that is dropped
/// is ended in the background, if the process lives long enough.
#[derive(Debug)]
pub struct Rental {
    held: Option<Box<Held>>,
}

#[derive(Debug)]
struct Held {
    client: Client,
    deal: Deal,
    activity: Option<Activity>,
    place: Option<(Network, IpAddr)>,
}

impl Client {
    /// Finds a provider on the market, and deploys and starts a payload there; in a network, if one
    /// is given, at its next free address.
    ///
    /// # Errors
    /// [`Error::NoProvider`] says which clause excludes how many offers, [`Error::NotFound`] that the
    /// registry has no such image, [`Error::Command`] why the payload could not be deployed.
    /// Whatever was made by then is unmade.
    pub async fn rent(&self, mut wish: Wish, network: Option<&Network>) -> Result<Rental, Error> {
        if network.is_some() && !wish.capabilities.iter().any(|c| c == "vpn") {
            wish.capabilities.push("vpn".to_owned());
        }
        let deal = self.bargain(&wish).await?;
        let mut held = Held { client: self.clone(), deal, activity: None, place: None };
        match held.set_up(wish.hostname, network).await {
            Ok(()) => Ok(Rental { held: Some(Box::new(held)) }),
            Err(error) => {
                // The first error is the one that matters.
                let _ = held.end("the payload could not be set up").await;
                Err(error)
            }
        }
    }
}

impl Rental {
    /// Its address in the network; `None` if it is in none.
    pub fn ip(&self) -> Option<IpAddr> {
        self.held().and_then(|held| held.place.as_ref()).map(|(_, ip)| *ip)
    }

    /// Who runs it.
    pub fn provider(&self) -> Option<NodeId> {
        self.held().map(|held| held.deal.provider)
    }

    /// The agreement that it runs under.
    pub fn agreement(&self) -> Option<AgreementId> {
        self.held().map(|held| held.deal.agreement)
    }

    /// Its activity, for scripts and streamed output.
    ///
    /// # Errors
    /// [`Error::NotFound`] once it has ended.
    pub fn activity(&self) -> Result<&Activity, Error> {
        let activity = self.held().and_then(|held| held.activity.as_ref());
        activity.ok_or_else(|| Error::NotFound("the rental has ended".to_owned()))
    }

    /// Runs a line in the payload's shell.
    ///
    /// # Errors
    /// [`Error::Command`] when it ends with an exit code other than 0.
    pub async fn run(&self, line: &str) -> Result<Output, Error> {
        self.activity()?.run(&Run::shell(line)).await
    }

    /// Copies a local file into the payload; its content is checked on arrival.
    ///
    /// # Errors
    /// [`Error::Command`], [`Error::Invalid`] for a file that cannot be read.
    pub async fn upload(&self, from: &Path, to: &str) -> Result<(), Error> {
        let client = self.client()?;
        let url = client.publish(from).await?;
        let moved = self.activity()?.transfer(&url, &format!("container:{to}")).await;
        client.unpublish(&url).await?;
        moved
    }

    /// Copies a file of the payload here; it arrives whole or not at all.
    ///
    /// # Errors
    /// [`Error::Command`], [`Error::Invalid`] for a place that cannot be written.
    pub async fn download(&self, from: &str, to: &Path) -> Result<(), Error> {
        let client = self.client()?;
        let url = client.receive(to).await?;
        let moved = self.activity()?.transfer(&format!("container:{from}"), &url).await;
        client.unpublish(&url).await?;
        moved
    }

    /// Destroys the payload, takes it out of its network, ends the agreement and accepts its (zero)
    /// invoice.
    ///
    /// # Errors
    /// The first thing that could not be undone; the rest is undone all the same.
    pub async fn end(mut self) -> Result<(), Error> {
        match self.held.take() {
            Some(held) => held.end("finished").await,
            None => Ok(()),
        }
    }

    fn held(&self) -> Option<&Held> {
        self.held.as_deref()
    }

    fn client(&self) -> Result<&Client, Error> {
        let held = self.held().ok_or_else(|| Error::NotFound("the rental has ended".to_owned()))?;
        Ok(&held.client)
    }
}

impl Drop for Rental {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(held), Ok(runtime)) = (self.held.take(), runtime) {
            runtime.spawn(async move { held.end("dropped").await });
        }
    }
}

impl Held {
    async fn set_up(
        &mut self,
        hostname: Option<String>,
        network: Option<&Network>,
    ) -> Result<(), Error> {
        let activity = self.client.start_activity(self.deal.agreement).await?;
        self.activity = Some(activity.clone());
        let mut deploy = DeployArgs { hostname: hostname.clone(), ..DeployArgs::default() };
        if let Some(network) = network {
            let mut new = NewMember::on(self.deal.provider);
            new.name = hostname;
            let member = network.add_member(&new).await?;
            let ip = member.ips.first().copied();
            let ip = ip.ok_or_else(|| Error::answer("the new member", "it has no address"))?;
            self.place = Some((network.clone(), ip));
            deploy.net = vec![network.deployment(ip).await?];
        }
        activity.deploy_with(deploy).await
    }

    async fn end(&self, reason: &str) -> Result<(), Error> {
        let destroyed = match &self.activity {
            Some(activity) => gone_is_fine(activity.destroy().await),
            None => Ok(()),
        };
        let left = match &self.place {
            Some((network, ip)) => gone_is_fine(network.remove_member(&ip.to_string()).await),
            None => Ok(()),
        };
        let concluded = self.client.conclude(&self.deal, reason).await;
        destroyed.and(left).and(concluded)
    }
}

fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}
