//! A port of the router's that leads to this node: asked for by PCP (RFC 6887), NAT-PMP
//! (RFC 6886) or UPnP IGD.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use crab_nat::{
    GatewayAddress, InternetProtocol, MappingFailure, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp,
};
use igd_next::{
    PortMappingProtocol, SearchOptions,
    aio::{
        Gateway,
        tokio::{Tokio, search_gateway},
    },
};
use serde::{Deserialize, Serialize};

use crate::shared::Shared;

/// What is asked for, in seconds; renewed at half of it, and given back at the end.
const LIFETIME: u32 = 1200;
/// How long a router may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How long to wait after a router that does not answer, or refuses.
const RETRY: Duration = Duration::from_secs(600);
const TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};
const DESCRIPTION: &str = "Golem VPN";

/// A port of the router's that leads to this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", tag = "state")]
#[non_exhaustive]
pub enum PortMapping {
    /// None is asked for.
    #[default]
    Off,
    /// The router is being asked.
    Asking,
    /// The router forwards from there.
    Mapped {
        /// The address outside.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        addr: SocketAddr,
        /// How it was had: `PCP`, `NAT-PMP` or `UPnP`.
        protocol: String,
    },
    /// There is none.
    None {
        /// Why.
        reason: String,
    },
}

/// Has a port mapped for as long as the net lives.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        shared.mapped(PortMapping::Asking);
        let ended = match ask(&shared).await {
            Ok(held) => {
                tracing::info!(addr = %held.addr, protocol = held.protocol(), "port mapped");
                let (addr, protocol) = (held.addr, held.protocol().to_owned());
                shared.mapped(PortMapping::Mapped { addr, protocol });
                keep(&shared, held).await
            }
            Err(reason) => {
                tracing::debug!(reason, "no port mapped");
                shared.mapped(PortMapping::None { reason });
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => false,
                    () = shared.addresses.moved() => false,
                    () = shared.ended.cancelled() => true,
                }
            }
        };
        if ended {
            return;
        }
    }
}

/// Renews a mapping until that fails, this node moves or the net ends; whether it was the last.
async fn keep(shared: &Shared, mut held: Held) -> bool {
    loop {
        let (moved, ended) = tokio::select! {
            () = tokio::time::sleep(held.lifetime() / 2) => (false, false),
            () = shared.addresses.moved() => (true, false),
            () = shared.ended.cancelled() => (false, true),
        };
        if !moved && !ended && held.renew().await {
            continue;
        }
        if ended {
            // The router forgets it by itself should this fail.
            let _ = tokio::time::timeout(ANSWER, held.give_back()).await;
        }
        return ended;
    }
}

async fn ask(shared: &Shared) -> Result<Held, String> {
    let port = shared.addresses.port(Ipv4Addr::UNSPECIFIED.into());
    let port = port.and_then(NonZeroU16::new).ok_or("this node does not listen on IPv4")?;
    let (gateway, own) = shared.addresses.gateway().ok_or("there is no IPv4 router")?;
    if !is_private(own) {
        return Err(format!("{own} is a public address: none is needed"));
    }
    let wait = ANSWER * 2;
    let by_pcp = async {
        tokio::time::timeout(wait, by_pcp(gateway, own, port))
            .await
            .unwrap_or_else(|_| Err("no answer".into()))
    };
    let by_upnp = async {
        tokio::time::timeout(wait, by_upnp(gateway, own, port))
            .await
            .unwrap_or_else(|_| Err("no answer".into()))
    };
    match by_pcp.await {
        Ok(held) => Ok(held),
        Err(pcp) => by_upnp.await.map_err(|upnp| {
            format!("the router {gateway} maps no port: PCP and NAT-PMP: {pcp}; UPnP: {upnp}")
        }),
    }
}

/// A mapping that exists.
struct Held {
    addr: SocketAddr,
    by: By,
}

enum By {
    Pcp(Box<crab_nat::PortMapping>),
    Upnp { gateway: Box<Gateway<Tokio>>, local: SocketAddr },
}

impl Held {
    fn protocol(&self) -> &'static str {
        match &self.by {
            By::Pcp(mapping) => match mapping.mapping_type() {
                PortMappingType::NatPmp => "NAT-PMP",
                PortMappingType::Pcp { .. } => "PCP",
            },
            By::Upnp { .. } => "UPnP",
        }
    }

    fn lifetime(&self) -> Duration {
        let seconds = match &self.by {
            By::Pcp(mapping) => mapping.lifetime().clamp(10, LIFETIME),
            By::Upnp { .. } => LIFETIME,
        };
        Duration::from_secs(seconds.into())
    }

    /// Whether the same address is mapped for longer.
    async fn renew(&mut self) -> bool {
        let port = self.addr.port();
        match &mut self.by {
            By::Pcp(mapping) => {
                mapping.renew().await.is_ok() && mapping.external_port().get() == port
            }
            By::Upnp { gateway, local } => {
                let udp = PortMappingProtocol::UDP;
                gateway.add_port(udp, port, *local, LIFETIME, DESCRIPTION).await.is_ok()
            }
        }
    }

    async fn give_back(self) {
        let done = match self.by {
            By::Pcp(mapping) => mapping.try_drop().await.map_err(|(e, _)| e.to_string()),
            By::Upnp { gateway, .. } => {
                let removed = gateway.remove_port(PortMappingProtocol::UDP, self.addr.port()).await;
                removed.map_err(|e| e.to_string())
            }
        };
        if let Err(error) = done {
            tracing::debug!(error, "the router keeps the mapped port for a while");
        }
    }
}

async fn by_pcp(gateway: IpAddr, own: IpAddr, port: NonZeroU16) -> Result<Held, String> {
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: Some(LIFETIME),
        timeout_config: Some(TIMEOUTS),
    };
    let gateway = GatewayAddress::from(gateway);
    let udp = InternetProtocol::Udp;
    let mapping = match crab_nat::PortMapping::new(gateway, own, udp, port, options).await {
        Ok(mapping) => mapping,
        // A router that knows but NAT-PMP should say so to PCP, but may keep silent.
        Err(MappingFailure::Pcp(pcp)) => natpmp::port_mapping(gateway, udp, port, options)
            .await
            .map_err(|natpmp| format!("{pcp}; {natpmp}"))?,
        Err(MappingFailure::NatPmp(natpmp)) => return Err(natpmp.to_string()),
    };
    let outside = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip,
        PortMappingType::NatPmp => natpmp::external_address(gateway, Some(TIMEOUTS))
            .await
            .map(IpAddr::from)
            .map_err(|e| e.to_string())?,
    };
    let addr = SocketAddr::new(outside.to_canonical(), mapping.external_port().get());
    Ok(Held { addr, by: By::Pcp(Box::new(mapping)) })
}

async fn by_upnp(router: IpAddr, own: IpAddr, port: NonZeroU16) -> Result<Held, String> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(own, 0);
    options.timeout = Some(ANSWER);
    options.single_search_timeout = Some(ANSWER);
    let gateway = search_gateway(options).await.map_err(|e| e.to_string())?;
    if gateway.addr.ip() != router {
        return Err(format!("{} answers, which is not the router", gateway.addr.ip()));
    }
    let local = SocketAddr::new(own, port.get());
    let mapped =
        gateway.get_any_address(PortMappingProtocol::UDP, local, LIFETIME, DESCRIPTION).await;
    let addr = mapped.map_err(|e| e.to_string())?;
    Ok(Held { addr, by: By::Upnp { gateway: Box::new(gateway), local } })
}

/// Whether a router must be in between if this address is to be reached from elsewhere (RFC 1918, RFC 6598).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64),
        IpAddr::V6(_) => false,
    }
}
