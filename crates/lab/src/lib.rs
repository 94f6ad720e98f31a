//! Real hosts in network namespaces, for tests, benchmarks and `gvpn demo`.
//!
//! A [`Lab`] is a small world: [`Host`]s (network namespaces), [`Lan`]s between them and NAT
//! [routers](Lab::nat), and [lines](Lab::line) that delay and lose. Nothing of it has a name outside: a namespace lives as long as the process
//! that holds it, and that process ends when the lab does, whatever ends the lab - its drop, a
//! panic, SIGINT or SIGKILL.
//!
//! As root the lab uses the machine's own user namespace; an ordinary user gets a private one,
//! where the kernel allows it. [`Lab::new`] says why not where it does not.
//!
//! ```no_run
//! # fn main() -> Result<(), gvpn_lab::LabError> {
//! let lab = gvpn_lab::Lab::new()?;
//! let lan = lab.lan()?;
//! let (a, b) = (lab.host("a")?, lab.host("b")?);
//! a.join(&lan, &["10.9.0.1/24"])?;
//! b.join(&lan, &["10.9.0.2/24"])?;
//! a.run("ping", ["-c1", "10.9.0.2"])?;
//! # Ok(())
//! # }
//! ```

mod error;
pub mod figures;
mod forge;
pub mod heap;
mod host;
pub mod image;
mod lan;
mod line;
mod nat;
mod process;
mod weather;
mod world;

pub use error::LabError;
pub use host::{Host, HostCommand};
pub use lan::Lan;
pub use line::{Line, LineCounts};
pub use nat::{Nat, Router};
pub use process::Process;
pub use weather::{Direction, Fate, Weather};
pub use world::Lab;
