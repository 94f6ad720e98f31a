//! The `sandbox` runtime: a process in namespaces of its own, without any privilege on the host.

mod init;

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use crate::{
    Access, Exit, ImageStore, Names, Output, Payload, Program, RootFs, Runtime, RuntimeError,
    Usage,
    init::{Init, Plan},
};
pub(crate) use init::InSandbox;

/// Runs the payload as processes in user, network, mount, pid, host name and IPC namespaces, with its
/// image as root file system, shared read-only below a layer of its own.
#[derive(Debug, Default)]
pub struct Sandbox {
    /// Environment of every program.
    env: BTreeMap<String, String>,
    image: OnceCell<RootFs>,
    names: Mutex<Names>,
    init: OnceCell<Init>,
}

impl Sandbox {
    /// A sandbox whose programs all see this environment.
    pub fn new(env: BTreeMap<String, String>) -> Self {
        Self { env, ..Self::default() }
    }

    fn init(&self) -> Result<&Init, RuntimeError> {
        self.init.get().ok_or_else(|| RuntimeError::NotRunning(": it was not started".into()))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime for Sandbox {
    async fn deploy(&self, payload: &Payload) -> Result<(), RuntimeError> {
        let image = ImageStore::image_of(payload).await?;
        let _ = self.image.set(image);
        Ok(())
    }

    async fn start(&self, payload: &Payload, _args: &[String]) -> Result<(), RuntimeError> {
        let Some(image) = self.image.get() else {
            return Err(RuntimeError::NotRunning(": it was not deployed".into()));
        };
        let mut env = image.config().env();
        env.extend(self.env.clone());
        let names = self.names().clone();
        let plan = Plan { helper: "init", layers: image.layers(), env: &env, names, more: () };
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
