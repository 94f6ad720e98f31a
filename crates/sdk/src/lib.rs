//! Client library for a daemon's API: networks, agreements, activities, files and the gate.
//!
//! Everything starts from a [`Client`]. Handles ([`Network`], [`Activity`]) are cheap to clone and
//! hold no state of their own: what they tell is what the daemon says at that moment.
//!
//! ```no_run
//! use gvpn_sdk::{Client, Wish};
//!
//! # async fn example() -> Result<(), gvpn_sdk::Error> {
//! let client = Client::from_env()?;
//! let network = client.create_network("192.168.7.0/24").await?;
//! let web = client.rent(Wish::image("golem/alpine:latest").named("web"), Some(&network)).await?;
//! web.run("busybox httpd -p 80 -h /tmp").await?;
//! let stream = network.connect(web.ip().unwrap(), 80).await?; // AsyncRead + AsyncWrite
//! # drop(stream);
//! web.end().await?;
//! network.remove().await
//! # }
//! ```
//!
//! The same by hand, with a provider that is known: [`Client::agree`], [`Client::start_activity`],
//! [`Network::add_node`], [`Activity::deploy`], [`Activity::run`].

mod activity;
mod agreement;
mod client;
mod error;
mod events;
mod files;
mod forward;
mod gate;
mod http;
mod image;
mod keys;
mod live;
mod market;
mod network;
mod node;
mod provider;
mod rental;
mod socks;

pub use activity::{Activity, ActivityInfo, Batch, Output, Run};
pub use agreement::{Agreement, AgreementRequest, AgreementState};
pub use client::{Client, DEFAULT_URL};
pub use error::Error;
pub use events::BatchEvents;
pub use forward::Forward;
pub use gate::{GateStream, RawFrames};
pub use image::Image;
pub use keys::KeyInfo;
pub use live::{
    Action, Limit, MemberEdit, NetworkChange, NewMember, Policy, PortRange, Protocol, Question,
    Route, Rule, Selector, Service, Trace,
};
pub use network::{
    ConnectionRow, Member, MemberChange, Network, NetworkInfo, NetworkRequest, NodeRow, Progress,
};
pub use node::{NodeStatus, PingReport};
pub use provider::{Preset, ProviderPolicy};
pub use rental::{Rental, Wish};
pub use socks::Socks;
