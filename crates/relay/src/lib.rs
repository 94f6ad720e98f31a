//! The relay: where nodes find each other, learn their public addresses, and send through when
//! there is no direct path.
//!
//! A relay is a node of Golem Net like any other, with an identity of its own, that its clients
//! reach by address. It keeps the registry of signed node records; it can neither read nor forge
//! what it forwards.
//!
//! `docs/relay.md` describes what clients and relays say to each other.

mod client;
mod fleet;
mod limit;
mod metrics;
mod offers;
mod registry;
mod relay;
mod sessions;
mod store;
mod streams;

pub use fleet::{FleetConfig, FleetStats};
pub use limit::Limits;
pub use registry::RegistryError;
pub use relay::{Relay, RelayConfig, RelayError, RelayStats, TcpAddress};
