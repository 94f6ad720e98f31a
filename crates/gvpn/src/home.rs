//! The data directory: identity, settings, the command line's own app key, the running daemon's
//! address.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use gvpn_identity::Identity;

use crate::{
    config::Config,
    failure::{Failure, Outcome},
};

/// A data directory.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    dir: PathBuf,
}

impl Home {
    /// The directory that was asked for, or `gvpn` in the user's data directory.
    pub(crate) fn new(dir: Option<PathBuf>) -> Outcome<Self> {
        let dir = match dir {
            Some(dir) => dir,
            None => default_dir().ok_or_else(|| {
                Failure::new("no data directory: neither HOME nor XDG_DATA_HOME is set")
                    .hint("name one with --data-dir DIR or GVPN_DATA_DIR")
            })?,
        };
        let dir = std::path::absolute(&dir)
            .map_err(Failure::io(format!("the data directory {}", dir.display())))?;
        Ok(Self { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory, its identity, settings and app key, where they are missing.
    pub(crate) fn init(&self) -> Outcome<Identity> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(Failure::io(format!("cannot make {}", self.dir.display())))?;
        let identity = Identity::load_or_create(&self.identity_file()).map_err(Failure::new)?;
        if !self.config_file().exists() {
            fs::write(self.config_file(), crate::config::TEMPLATE)
                .map_err(Failure::io("cannot write the settings"))?;
        }
        if self.app_key().is_none() {
            let mut secret = [0; 16];
            getrandom::fill(&mut secret).map_err(Failure::new)?;
            self.write_private("appkey", &hex::encode(secret))?;
        }
        Ok(identity)
    }

    pub(crate) fn identity_file(&self) -> PathBuf {
        self.dir.join("identity")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    pub(crate) fn config(&self) -> Outcome<Config> {
        Config::read(&self.config_file())
    }

    /// The command line's own app key.
    pub(crate) fn app_key(&self) -> Option<String> {
        self.read("appkey")
    }

    /// Where the daemon of this directory serves its API, while it runs.
    pub(crate) fn api_url(&self) -> Option<String> {
        self.read("api.url")
    }

    pub(crate) fn set_api_url(&self, url: &str) -> Outcome {
        self.write_private("api.url", url)
    }

    pub(crate) fn forget_api_url(&self) {
        // Gone already is as good.
        let _ = fs::remove_file(self.dir.join("api.url"));
    }

    /// Takes the directory for this process; freed when the file is closed.
    pub(crate) fn lock(&self) -> Outcome<fs::File> {
        let path = self.dir.join("lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(Failure::io(format!("cannot open {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(_) => Err(Failure::new(format!(
                "another daemon runs with the data directory {}",
                self.dir.display()
            ))
            .hint("stop it, or give this one a directory of its own with --data-dir DIR")),
        }
    }

    fn read(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.dir.join(name)).ok()?;
        Some(text.trim().to_owned()).filter(|t| !t.is_empty())
    }

    /// Replaces a file that only its owner may read, whole or not at all.
    fn write_private(&self, name: &str, text: &str) -> Outcome {
        let path = self.dir.join(name);
        let fresh = self.dir.join(format!(".{name}.new"));
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&fresh, &path)
        };
        write().map_err(Failure::io(format!("cannot write {}", path.display())))
    }
}

fn default_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("gvpn"))
}
