//! A runtime chosen at run time.

use std::{fs::File, future::Future, pin::Pin};

use gvpn_model::NetworkId;
use gvpn_vnic::Nic;

use crate::{
    Access, Exit, Names, NetworkConfig, Output, Payload, Program, Runtime, RuntimeError, Usage,
};

/// A boxed future.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

macro_rules! erase {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        /// [`Runtime`] with its futures boxed.
        trait Erased {
            $(fn $name<'a>(&'a self, payload: &'a Payload, $($arg: $type),*) -> Task<'a, $result>;)*
        }

        impl<R: Runtime> Erased for R {
            $(fn $name<'a>(&'a self, payload: &'a Payload, $($arg: $type),*) -> Task<'a, $result> {
                Box::pin(Runtime::$name(self, payload, $($arg),*))
            })*
        }

        impl AnyRuntime {
            $(
                /// As the method of [`Runtime`] of the same name.
                pub fn $name<'a>(
                    &'a self,
                    payload: &'a Payload,
                    $($arg: $type),*
                ) -> Task<'a, $result> {
                    self.0.$name(payload, $($arg),*)
                }
            )*
        }
    };
}

/// Any runtime, behind a pointer.
pub struct AnyRuntime(Box<dyn Erased>);

impl AnyRuntime {
    /// Forgets which runtime it is.
    pub fn new(runtime: impl Runtime) -> Self {
        Self(Box::new(runtime))
    }
}

impl std::fmt::Debug for AnyRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnyRuntime")
    }
}

erase! {
    deploy() -> Result<(), RuntimeError>;
    start(args: &'a [String]) -> Result<(), RuntimeError>;
    run(program: Program, output: Output) -> Result<Exit, RuntimeError>;
    stop() -> Result<(), RuntimeError>;
    open(path: &'a str, access: Access) -> Result<File, RuntimeError>;
    close(path: &'a str, file: File) -> Result<(), RuntimeError>;
    usage() -> Result<Usage, RuntimeError>;
    ended() -> String;
    join(network: &'a NetworkConfig) -> Result<Nic, RuntimeError>;
    joined(network: &'a NetworkConfig) -> Result<(), RuntimeError>;
    update(network: &'a NetworkConfig) -> Result<(), RuntimeError>;
    leave(network: NetworkId) -> Result<(), RuntimeError>;
    rename(names: &'a Names) -> Result<(), RuntimeError>;
}
