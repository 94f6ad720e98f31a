//! Client library for a daemon's API: networks, agreements, activities, files and the gate.
//!
//! Everything starts from a [`Client`]. Handles ([`Network`], [`Activity`]) are cheap to clone and
//! hold no state of their own: what they tell is what the daemon says at that moment.
//!
//! ```no_run
//! use gvpn_sdk::{AgreementRequest, Client, Run};
//!
//! # async fn example() -> Result<(), gvpn_sdk::Error> {
//! let client = Client::from_env()?;
//! let network = client.create_network("192.168.7.0/24").await?;
//! let provider = "0x00112233445566778899aabbccddeeff00112233".parse()?;
//! let agreement = client.agree(provider, &AgreementRequest::image("web.tar.gz")).await?;
//! let activity = client.start_activity(agreement.id).await?;
//! let address = network.add_node(provider, "192.168.7.2").await?;
//! activity.deploy(&[network.deployment(address).await?]).await?;
//! let uname = activity.run(&Run::new("/bin/uname").arg("-a")).await?;
//! println!("{}", uname.stdout);
//! let stream = network.connect(address, 80).await?; // AsyncRead + AsyncWrite
//! # drop(stream);
//! network.remove().await
//! # }
//! ```

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
mod network;
mod node;
mod provider;
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
pub use socks::Socks;
