//! The ExeUnit: supervisor process of one activity, interpreter of its ExeScript, and the handle
//! its daemon holds.

mod config;
mod event;
mod handle;

pub use config::{ExeUnitConfig, Limits, NetworkConfig};
pub use event::{ExeUnitEvent, Reply, Usage};
pub use handle::{ExeUnit, ExeUnitError, exeunit_main, sweep};
