//! EasyTier, whose core PyPI has as a Python extension.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    bed::{self, Bed},
    peers::tunnel,
    system::{BenchError, Layout, System, Tunnel},
};

/// The extension's version; `easytier_pyo3.version()` tells the core's.
const VERSION: &str = "0.1.3";

/// A node that runs until it is killed: its own address, then the other end's.
const NODE: &str = r#"
import sys
from easytier_pyo3 import Node

address, peer = sys.argv[1:]
node = Node({
    "instance_name": address,
    "network_identity": {"network_name": "bench", "network_secret": "bench"},
    "ipv4": address + "/24",
    "listeners": ["udp://0.0.0.0:11010"],
    "peer": [{"uri": f"udp://{peer}:11010"}],
    "flags": {"mtu": 1420},
})
node.start()
node.wait()
"#;

/// EasyTier over UDP, encrypted as it is by default.
pub(crate) struct EasyTier {
    environment: PathBuf,
}

impl EasyTier {
    /// EasyTier in a Python environment below `built`.
    pub(crate) fn new(built: &Path) -> Self {
        let built = std::path::absolute(built).unwrap_or_else(|_| built.to_owned());
        Self { environment: built.join(format!("easytier-pyo3-{VERSION}")) }
    }

    fn python(&self) -> PathBuf {
        self.environment.join("bin/python")
    }

    fn core(&self) -> Option<String> {
        let print = "import easytier_pyo3; print(easytier_pyo3.version())";
        let output = Command::new(self.python()).args(["-c", print]).output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(version)
    }
}

impl System for EasyTier {
    fn name(&self) -> &str {
        "easytier"
    }

    fn version(&self) -> Option<String> {
        Some(format!("{} (PyPI's easytier-pyo3 {VERSION})", self.core()?))
    }

    fn available(&self) -> Result<(), String> {
        if self.core().is_some() {
            return Ok(());
        }
        println!("installing easytier-pyo3 {VERSION}");
        let package = format!("easytier-pyo3=={VERSION}");
        let run = |command: &mut Command| {
            let output = command.output().map_err(|error| format!("python3: {error}"))?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!(
                "PyPI's {package} does not install: {}",
                said.lines().last().unwrap_or_default()
            ))
        };
        run(Command::new("python3").args(["-m", "venv"]).arg(&self.environment))?;
        let pip = ["-m", "pip", "install", "-q", "--only-binary", ":all:", &package];
        run(Command::new(self.python()).args(pip))?;
        self.core().map(drop).ok_or_else(|| format!("PyPI's {package} does not load"))
    }

    fn up(&self, bed: &Bed, _: Layout) -> Result<Tunnel, BenchError> {
        let ends = [(&bed.a, "10.98.0.1", bed::B), (&bed.b, "10.98.0.2", bed::A)];
        let mut guards: Vec<Box<dyn std::any::Any>> = Vec::new();
        for (host, address, peer) in ends {
            let mut command = host.command(self.python());
            command.args(["-c", NODE, address, peer]);
            command.inner().stdout(Stdio::null()).stderr(Stdio::null());
            guards.push(Box::new(command.spawn()?));
        }
        Ok(tunnel(bed, [10, 98, 0, 2], guards))
    }
}
