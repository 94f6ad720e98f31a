//! The runtime SDK: the [`Runtime`] trait with the VPN built in, and the runtimes that ship with it.
//!
//! A runtime says how a payload is deployed, started, run and stopped. The network part has default
//! implementations: each network that the payload joins becomes an interface in the payload's
//! [`Namespace`](gvpn_vnic::Namespace), and follows every change while the payload runs. A runtime
//! with a network card of its own overrides [`Runtime::join`] and hands out its end of it.

mod cage;
mod cgroup;
mod confinement;
mod container;
mod erased;
mod error;
mod external;
mod helper;
mod image;
mod init;
mod keep;
mod layers;
mod limits;
mod mounts;
mod names;
mod network;
mod payload;
mod rooted;
mod runtime;
mod sandbox;
mod usage;
mod vm;

pub use cgroup::remove_groups;
pub use container::{Container, PROBE, write_probe_image};
pub use erased::{AnyRuntime, Task};
pub use error::RuntimeError;
pub use external::{External, Patience};
pub use helper::{Helper, helper_main};
pub use image::{
    ImageConfig, ImageError, ImageKind, ImageStore, RootFs, build_image, directory_size,
    image_kind, pack_directory,
};
pub use limits::{Limits, Usage};
pub use names::Names;
pub use network::NetworkConfig;
pub use payload::{Payload, PayloadConfig, remove_trees};
pub use runtime::{Access, Exit, Output, Program, Runtime};
pub use sandbox::Sandbox;
pub use vm::{Machine, Vm};

/// The runtime of this name, if it ships with this crate; the path of a program is the name of the
/// runtime that this program is.
pub fn by_name(name: &str) -> Option<AnyRuntime> {
    match name {
        _ if name.starts_with('/') => Some(AnyRuntime::new(External::new(name))),
        "sandbox" => Some(AnyRuntime::new(Sandbox::default())),
        "container" => Some(AnyRuntime::new(Container::default())),
        "vm" => Some(AnyRuntime::new(Vm::new(None))),
        _ => {
            let machine = name.strip_prefix("vm-").and_then(Machine::by_name)?;
            Some(AnyRuntime::new(Vm::new(Some(machine))))
        }
    }
}
