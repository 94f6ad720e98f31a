//! The daemon's services: networks, agreements, activities and files, on top of Golem Net.
//!
//! A [`Node`] is a requestor, a provider or both. As a requestor it owns networks, contracts
//! providers and drives their activities; as a provider it accepts agreements by its policy and
//! runs one ExeUnit an activity. Whatever its role, it follows the rosters of the networks it is a
//! member of and keeps the data path's tables up to date.

mod activities;
mod agreements;
mod config;
mod core;
mod courier;
mod error;
mod files;
mod images;
mod keys;
mod market;
mod metrics;
mod networks;
mod nic;
mod node;
mod payment;
mod peers;
mod policy;

pub mod proto;
mod runtimes;

pub use activities::{Activities, ActivityInfo, ActivitySpec, BatchResults, EventStream, Usage};
pub use agreements::{
    Agreement, AgreementCheck, AgreementEvent, AgreementRole, AgreementSpec, AgreementState,
    Agreements,
};
pub use config::{GateKind, NodeConfig, ProviderPolicy, Resolver};
pub use error::{ErrorKind, NodeError};
pub use files::{FileCall, Files};
pub use images::{Image, Images};
pub use keys::{AppKey, Keys};
pub use market::{MarketConfig, Markets, ScanId, ScanRequest};
pub use networks::{
    CaptureStream, CaptureWish, NetworkInfo, NetworkSpec, Networks, NodeRow, Progress, RuleRow, Tap,
};
pub use node::{Node, NodeStatus};
pub use payment::Payments;
pub use policy::PolicyChanges;

pub use gvpn_net::{PathReport, PeerStatus};
