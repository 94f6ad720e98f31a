//! The ExeUnit: supervisor process of one activity, interpreter of its ExeScript, and the handle
//! its daemon holds.
//!
//! The daemon calls [`ExeUnit::spawn`], which starts the supervisor as a process of its own
//! ([`exeunit_main`]); the two talk over a Unix socket that also carries vNICs and files. When either
//! end dies the other notices at once, and nothing of the payload outlives them.

mod config;
mod event;
mod handle;
mod probe;
mod supervisor;
mod sweep;
mod wire;

pub use config::ExeUnitConfig;
pub use event::{ExeUnitEvent, Reply, SignReply};
pub use gvpn_runtime::{Limits, NetworkConfig, Usage};
pub use handle::{ExeUnit, ExeUnitError};
pub use probe::{Probed, probe};
pub use supervisor::{exeunit_main, exeunit_main_with};
pub use sweep::{sweep, sweep_with};
