//! The `container` runtime: a container image, run by the host's OCI runtime without any privilege.

mod engine;
mod inside;
mod probe;
mod spec;
mod user;

use std::{
    fs::File,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use crate::{
    Access, Exit, ImageStore, Names, Output, Payload, Program, RootFs, Runtime, RuntimeError,
    Usage,
    init::{Init, Plan},
};
pub(crate) use inside::InContainer;
pub use probe::{PROBE, write_probe_image};

/// Runs the payload as a container of the host's OCI runtime (`runc`, `crun` or `youki`) in the
/// payload's user and network namespaces. The layers of its image are shared read-only below a layer
/// of its own; the image's entry point, environment, user and working directory are heeded.
#[derive(Debug, Default)]
pub struct Container {
    image: OnceCell<RootFs>,
    names: Mutex<Names>,
    init: OnceCell<Init>,
}

impl Container {
    fn init(&self) -> Result<&Init, RuntimeError> {
        self.init.get().ok_or_else(|| RuntimeError::NotRunning(": it was not started".into()))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime for Container {
    async fn deploy(&self, payload: &Payload) -> Result<(), RuntimeError> {
        let image = ImageStore::image_of(payload).await?;
        let _ = self.image.set(image);
        Ok(())
    }

    /// Starts the container and, in it, the image's entry point; `args` take the place of the
    /// arguments that the image has for it.
    async fn start(&self, payload: &Payload, args: &[String]) -> Result<(), RuntimeError> {
        let Some(image) = self.image.get() else {
            return Err(RuntimeError::NotRunning(": it was not deployed".into()));
        };
        let more = inside::More {
            engines: engine::installed(),
            config: image.config().clone(),
            command: image.config().command(args),
        };
        let names = self.names().clone();
        let env = payload.env();
        let plan = Plan { helper: "container", layers: image.layers(), env: &env, names, more };
        let _ = self.init.set(Init::start(payload, plan).await?);
        Ok(())
    }

    async fn run(
        &self,
        _payload: &Payload,
        program: Program,
        output: Output,
    ) -> Result<Exit, RuntimeError> {
        self.init()?.run(program, output).await
    }

    async fn stop(&self, _payload: &Payload) -> Result<(), RuntimeError> {
        if let Some(init) = self.init.get() {
            init.stop().await;
        }
        Ok(())
    }

    async fn open(
        &self,
        _payload: &Payload,
        path: &str,
        access: Access,
    ) -> Result<File, RuntimeError> {
        self.init()?.open(path, access).await
    }

    async fn usage(&self, _payload: &Payload) -> Result<Usage, RuntimeError> {
        self.init()?.usage().await
    }

    async fn ended(&self, _payload: &Payload) -> String {
        match self.init.get() {
            Some(init) => init.ended().await,
            None => std::future::pending().await,
        }
    }

    async fn rename(&self, _payload: &Payload, names: &Names) -> Result<(), RuntimeError> {
        *self.names() = names.clone();
        match self.init.get() {
            Some(init) => init.rename(names).await,
            None => Ok(()),
        }
    }
}
