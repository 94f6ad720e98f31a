//! This product, whole: two daemons, an activity on each, payload to payload.

use std::path::{Path, PathBuf};

use crate::{
    bed::Bed,
    system::{BenchError, System, Tunnel},
};

/// `gvpn`.
pub(crate) struct Product {
    binary: PathBuf,
}

impl Product {
    /// The product whose binary this is.
    pub(crate) fn new(binary: &Path) -> Self {
        Self { binary: binary.to_owned() }
    }
}

impl System for Product {
    fn name(&self) -> &str {
        "gvpn"
    }

    fn available(&self) -> Result<(), String> {
        if self.binary.exists() {
            return Ok(());
        }
        Err(format!("{} is not there; build it with `make build`", self.binary.display()))
    }

    fn up(&self, _bed: &Bed) -> Result<Tunnel, BenchError> {
        Err(BenchError::NotUp(0))
    }
}
