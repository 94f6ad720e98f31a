//! Names as the payload looks them up.

use std::{fmt::Write, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::NetworkConfig;

/// The payload's host name and the contents of its `/etc/hosts` and `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The payload's host name.
    pub hostname: String,
    /// Names and their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Search domains.
    pub search: Vec<String>,
}

impl Names {
    /// The names of a payload in these networks; `hosts` are those its `deploy` brought.
    pub fn new<'a>(
        hostname: &str,
        hosts: &[(String, IpAddr)],
        networks: impl IntoIterator<Item = &'a NetworkConfig>,
    ) -> Self {
        let mut names = Self { hostname: hostname.to_owned(), ..Self::default() };
        names.hosts.extend_from_slice(hosts);
        for network in networks {
            let own = network.addresses.iter().map(|a| (hostname.to_owned(), a.addr()));
            names.hosts.extend(own);
            names.hosts.extend_from_slice(&network.hosts);
            names.dns.extend_from_slice(&network.dns);
            names.search.extend_from_slice(&network.search);
        }
        names
    }

    /// The text of `/etc/hosts`.
    pub fn hosts_file(&self) -> String {
        let mut text = String::from(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
        );
        if !self.hosts.iter().any(|(name, _)| *name == self.hostname) && is_name(&self.hostname) {
            let _ = writeln!(text, "127.0.1.1\t{}", self.hostname);
        }
        for (name, address) in self.hosts.iter().filter(|(name, _)| is_name(name)) {
            let _ = writeln!(text, "{address}\t{name}");
        }
        text
    }

    /// The text of `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> String {
        let mut text = String::new();
        let search: Vec<&str> =
            self.search.iter().map(String::as_str).filter(|name| is_name(name)).collect();
        if !search.is_empty() {
            let _ = writeln!(text, "search {}", search.join(" "));
        }
        // The resolver of the C library reads three.
        for server in self.dns.iter().take(3) {
            let _ = writeln!(text, "nameserver {server}");
        }
        text
    }
}

/// Whether a text may stand in those files: names come from other people and must not break lines.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_do_not_reach_the_files() {
        let names = Names {
            hostname: "web".into(),
            hosts: vec![
                ("db".into(), [10, 0, 0, 2].into()),
                ("x\n6.6.6.6 bank.example".into(), [10, 0, 0, 3].into()),
            ],
            dns: vec![[10, 0, 0, 1].into()],
            search: vec!["net.vpn".into(), "a b".into()],
        };
        let hosts = names.hosts_file();
        assert!(hosts.contains("10.0.0.2\tdb\n") && hosts.contains("127.0.1.1\tweb\n"), "{hosts}");
        assert!(!hosts.contains("bank"), "{hosts}");
        assert_eq!(names.resolv_conf(), "search net.vpn\nnameserver 10.0.0.1\n");
    }
}
