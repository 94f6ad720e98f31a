//! A SOCKS5 proxy (RFC 1928) into a network: CONNECT only, no authentication, loopback by default.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Error, Network,
    forward::{join, serve},
};

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const COMMAND_UNKNOWN: u8 = 7;
const ADDRESS_UNKNOWN: u8 = 8;

/// A SOCKS5 proxy. Dropping it closes the port and its connections.
#[derive(Debug)]
pub struct Socks {
    local: SocketAddr,
    _listening: AbortOnDropHandle<()>,
}

impl Socks {
    /// Listens on `local` (port 0 for any free one). Programs may name payloads by address or by
    /// member name (`web`, `web.NETWORK.vpn`).
    ///
    /// # Errors
    /// [`Error::Io`] when the port is taken.
    pub async fn start(network: Network, local: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(local)
            .await
            .map_err(Error::io(format!("cannot listen on {local}")))?;
        let local = listener.local_addr().map_err(Error::io("the local port"))?;
        let listening = tokio::spawn(serve(listener, move |tcp| {
            let network = network.clone();
            async move {
                if let Err(error) = client(tcp, &network).await {
                    tracing::debug!(%error, "a SOCKS client broke off");
                }
            }
        }));
        Ok(Self { local, _listening: AbortOnDropHandle::new(listening) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

async fn client(mut tcp: TcpStream, network: &Network) -> io::Result<()> {
    let mut head = [0; 2];
    tcp.read_exact(&mut head).await?;
    if head[0] != VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not SOCKS 5"));
    }
    let mut methods = vec![0; head[1].into()];
    tcp.read_exact(&mut methods).await?;
    if !methods.contains(&0) {
        return tcp.write_all(&[VERSION, 0xff]).await;
    }
    tcp.write_all(&[VERSION, 0]).await?;

    let mut request = [0; 4];
    tcp.read_exact(&mut request).await?;
    let target = match target(&mut tcp, request[3]).await? {
        Some(target) => target,
        None => return refuse(&mut tcp, ADDRESS_UNKNOWN).await,
    };
    let port = tcp.read_u16().await?;
    if request[1] != CONNECT {
        return refuse(&mut tcp, COMMAND_UNKNOWN).await;
    }
    let ip = match target {
        Target::Ip(ip) => ip,
        Target::Name(name) => match resolve(network, &name).await {
            Some(ip) => ip,
            None => return refuse(&mut tcp, HOST_UNREACHABLE).await,
        },
    };
    match network.connect(ip, port).await {
        Ok(gate) => {
            tcp.write_all(&[VERSION, SUCCEEDED, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            join(&mut tcp, gate).await;
            Ok(())
        }
        Err(error) => {
            let code = match error {
                Error::Refused(_) => REFUSED,
                Error::Forbidden(_) | Error::Unauthorized(_) => NOT_ALLOWED,
                Error::Timeout(_) | Error::NotFound(_) | Error::Invalid(_) => HOST_UNREACHABLE,
                _ => GENERAL_FAILURE,
            };
            refuse(&mut tcp, code).await
        }
    }
}

enum Target {
    Ip(IpAddr),
    Name(String),
}

async fn target(tcp: &mut TcpStream, kind: u8) -> io::Result<Option<Target>> {
    Ok(match kind {
        1 => {
            let mut octets = [0; 4];
            tcp.read_exact(&mut octets).await?;
            Some(Target::Ip(Ipv4Addr::from(octets).into()))
        }
        3 => {
            let mut name = vec![0; tcp.read_u8().await?.into()];
            tcp.read_exact(&mut name).await?;
            let name = String::from_utf8_lossy(&name).into_owned();
            Some(name.parse().map_or(Target::Name(name), Target::Ip))
        }
        4 => {
            let mut octets = [0; 16];
            tcp.read_exact(&mut octets).await?;
            Some(Target::Ip(Ipv6Addr::from(octets).into()))
        }
        _ => None,
    })
}

/// The first address of the member of that name.
async fn resolve(network: &Network, name: &str) -> Option<IpAddr> {
    let wanted = name.trim_end_matches('.').to_lowercase();
    let wanted = wanted.split('.').next()?;
    let members = network.members().await.ok()?;
    let by_name: HashMap<String, IpAddr> = members
        .into_iter()
        .filter_map(|m| Some((m.name?.to_lowercase(), *m.ips.first()?)))
        .collect();
    by_name.get(wanted).copied()
}

async fn refuse(tcp: &mut TcpStream, code: u8) -> io::Result<()> {
    tcp.write_all(&[VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]).await
}
