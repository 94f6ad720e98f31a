//! Things that run on a host of the lab with all of their threads.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::{Duration, Instant};

use gvpn_lab::Host;
use tokio::runtime::{Builder, Runtime};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Something that runs on a host, all of its threads included.
pub(crate) struct On<T> {
    pub(crate) what: T,
    pub(crate) runtime: Runtime,
    pub(crate) host: Host,
}

impl<T: Send> On<T> {
    pub(crate) fn start<F>(host: Host, start: impl FnOnce() -> F + Send) -> Self
    where
        F: Future<Output = T> + Send,
    {
        let (what, runtime) = host
            .enter(|| {
                let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
                let runtime = runtime.unwrap();
                (runtime.block_on(async { start().await }), runtime)
            })
            .unwrap();
        Self { what, runtime, host }
    }

    /// Does something to it where its tasks can be started.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&T) -> R) -> R {
        let _inside = self.runtime.enter();
        work(&self.what)
    }

    pub(crate) fn filter(&self, rules: &str) {
        self.host.run("nft", [rules]).unwrap();
    }
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
