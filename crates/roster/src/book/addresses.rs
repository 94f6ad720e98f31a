//! Addresses that the book picks.

use std::net::IpAddr;

use gvpn_model::{NodeId, addressing};
use ipnet::IpNet;

use super::OwnerBook;
use crate::{BookError, derived_address, ula::with_host};

/// How many derived candidates are tried before the next free address is taken.
const ATTEMPTS: u32 = 64;

impl OwnerBook {
    /// The next free address of `prefix`, other than its gateway. Freed addresses are used again
    /// only after all others.
    ///
    /// # Errors
    /// [`BookError::UnknownPrefix`], [`BookError::Full`].
    pub fn free_address(&mut self, prefix: IpNet) -> Result<IpAddr, BookError> {
        let subnets = &self.roster.settings.subnets;
        let subnet =
            *subnets.iter().find(|s| s.prefix == prefix).ok_or(BookError::UnknownPrefix(prefix))?;
        let host_bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
        let hosts = 1u128 << host_bits.min(100);
        let start = self.cursors.get(&prefix).copied().unwrap_or(0);
        // Every address that is not free is somebody's: this many candidates are enough.
        let candidates = hosts.min(self.addresses.len() as u128 + 4);
        for step in 1..=candidates {
            let host = (start + step) % hosts;
            let ip = with_host(prefix, host);
            let usable = ip != subnet.gateway && addressing::check_host(ip, prefix).is_ok();
            if usable && !self.addresses.contains_key(&ip) {
                self.cursors.insert(prefix, host);
                return Ok(ip);
            }
        }
        Err(BookError::Full(prefix))
    }

    /// The address in `prefix` that follows from a node and a name, the same whenever it is free.
    ///
    /// # Errors
    /// As [`free_address`](Self::free_address).
    pub fn derived_address(
        &mut self,
        prefix: IpNet,
        node: NodeId,
        name: &str,
    ) -> Result<IpAddr, BookError> {
        let gateway = |ip: &IpAddr| self.roster.is_gateway(*ip);
        let derived = (0..ATTEMPTS)
            .map(|attempt| derived_address(prefix, node, name, attempt))
            .filter(|ip| !gateway(ip) && addressing::check_host(*ip, prefix).is_ok())
            .find(|ip| !self.addresses.contains_key(ip));
        match derived {
            Some(ip) => Ok(ip),
            None => self.free_address(prefix),
        }
    }

    /// A free address of every prefix.
    pub(super) fn free_addresses(&mut self) -> Result<Vec<IpAddr>, BookError> {
        let prefixes: Vec<_> = self.roster.settings.subnets.iter().map(|s| s.prefix).collect();
        prefixes.into_iter().map(|prefix| self.free_address(prefix)).collect()
    }
}
