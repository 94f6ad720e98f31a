//! HTTP proxies: a tunnel by CONNECT (RFC 9110 section 9.3.6).

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::{Host, Url};

/// The longest head of an answer that is read.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
const DEFAULT_PORT: u16 = 80;

/// Why there is no tunnel through a proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The setting is not the address of an HTTP proxy.
    #[error("`{0}` is no HTTP proxy: expected http://[USER:PASSWORD@]HOST:PORT")]
    Setting(String),
    /// It cannot be reached.
    #[error("the HTTP proxy {proxy} cannot be reached: {source}")]
    Unreachable {
        /// The proxy.
        proxy: String,
        /// What the system said.
        source: io::Error,
    },
    /// It said no.
    #[error("the HTTP proxy {proxy} refused a tunnel to {to}: {status}{hint}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// Where to.
        to: SocketAddr,
        /// The answer's status.
        status: String,
        /// What may help.
        hint: &'static str,
    },
    /// It did not speak HTTP.
    #[error("the HTTP proxy {proxy} answered with something else than HTTP: {what}")]
    Nonsense {
        /// The proxy.
        proxy: String,
        /// What is wrong.
        what: String,
    },
}

/// An HTTP proxy that opens tunnels by CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

impl FromStr for Proxy {
    type Err = ProxyError;

    /// Reads `http://[USER:PASSWORD@]HOST[:PORT]`; the scheme may be missing.
    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let wrong = || ProxyError::Setting(without_password(text));
        let url = Url::parse(&full).map_err(|_| wrong())?;
        let host = match url.host().ok_or_else(wrong)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        if url.scheme() != "http" {
            return Err(wrong());
        }
        let authorization = (!url.username().is_empty()).then(|| {
            let user = percent_decode_str(url.username());
            let password = percent_decode_str(url.password().unwrap_or_default());
            let both: Vec<u8> = user.chain(*b":").chain(password).collect();
            format!("Basic {}", STANDARD.encode(both))
        });
        Ok(Self { host, port: url.port().unwrap_or(DEFAULT_PORT), authorization })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Without user and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).fmt(f),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn without_password(text: &str) -> String {
    text.rsplit_once('@').map_or(text, |(_, host)| host).to_owned()
}

impl Proxy {
    /// The proxy that the environment names (`HTTPS_PROXY`, `ALL_PROXY`; also in lower case), if
    /// any.
    ///
    /// # Errors
    /// [`ProxyError::Setting`].
    pub fn from_env() -> Result<Option<Self>, ProxyError> {
        let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
        let set = names.iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
        set.map(|value| value.parse()).transpose()
    }

    /// Opens a tunnel to `to`.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub async fn connect(&self, to: SocketAddr) -> Result<TcpStream, ProxyError> {
        let unreachable = |source| ProxyError::Unreachable { proxy: self.to_string(), source };
        let mut stream =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        stream.write_all(self.request(to).as_bytes()).await.map_err(unreachable)?;
        // Nothing follows the head before the tunnel is used, so that it may be read to its end
        // byte by byte and no further.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == MAX_HEAD {
                return Err(self.nonsense("its head does not end"));
            }
            head.push(stream.read_u8().await.map_err(unreachable)?);
        }
        self.read_head(to, &head)?;
        Ok(stream)
    }

    fn request(&self, to: SocketAddr) -> String {
        let authorization = self.authorization.as_ref();
        let authorization =
            authorization.map(|a| format!("Proxy-Authorization: {a}\r\n")).unwrap_or_default();
        format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{authorization}\r\n")
    }

    /// Whether an answer opens the tunnel.
    fn read_head(&self, to: SocketAddr, head: &[u8]) -> Result<(), ProxyError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(self.nonsense("half an answer")),
            Err(error) => return Err(self.nonsense(&error.to_string())),
        }
        let hint = match answer.code {
            Some(200..300) => return Ok(()),
            Some(401 | 407) => "; give user and password in the proxy's address",
            Some(403 | 405) => "; ask its administrator to allow this port",
            _ => "",
        };
        let (code, reason) = (answer.code.unwrap_or_default(), answer.reason.unwrap_or_default());
        let status = format!("{code} {reason}");
        Err(ProxyError::Refused { proxy: self.to_string(), to, status, hint })
    }

    fn nonsense(&self, what: &str) -> ProxyError {
        ProxyError::Nonsense { proxy: self.to_string(), what: what.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to() -> SocketAddr {
        "192.0.2.1:443".parse().unwrap()
    }

    #[test]
    fn settings_are_read() {
        let proxy: Proxy = "http://us%40er:p%3Aw@proxy.example:3128".parse().unwrap();
        assert_eq!(proxy.to_string(), "proxy.example:3128");
        let request = proxy.request(to());
        let basic = STANDARD.encode("us@er:p:w");
        assert_eq!(
            request,
            format!(
                "CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\
                 Proxy-Authorization: Basic {basic}\r\n\r\n"
            )
        );
        assert!(!format!("{proxy:?}").contains("p:w"));
        assert_eq!("10.0.0.1".parse::<Proxy>().unwrap().to_string(), "10.0.0.1:80");
        assert_eq!("[fd00::1]:8080".parse::<Proxy>().unwrap().to_string(), "[fd00::1]:8080");
        for wrong in ["", "https://a:1", "socks5://user:secret@a:1", "http://", "http://a:99999"] {
            let error = wrong.parse::<Proxy>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let proxy: Proxy = "p:1".parse().unwrap();
        let read = |head: &str| proxy.read_head(to(), head.as_bytes());
        assert!(read("HTTP/1.0 200 Connection established\r\n\r\n").is_ok());
        assert!(read("HTTP/1.1 204 x\r\nVia: y\r\n\r\n").is_ok());
        let error = read("HTTP/1.1 407 Who\r\n\r\n").unwrap_err().to_string();
        assert!(error.contains("407 Who") && error.contains("password"), "{error}");
        assert!(matches!(read("SSH-2.0-x\r\n\r\n"), Err(ProxyError::Nonsense { .. })));
        assert!(matches!(read("HTTP/1.1 200"), Err(ProxyError::Nonsense { .. })));
    }

    proptest! {
        #[test]
        fn rubbish_opens_nothing(head in prop::collection::vec(any::<u8>(), 0..2000)) {
            let proxy: Proxy = "p:1".parse().unwrap();
            prop_assume!(!head.starts_with(b"HTTP/1."));
            prop_assert!(proxy.read_head(to(), &head).is_err());
        }

        #[test]
        fn settings_never_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<Proxy>();
        }
    }
}
