//! Where the daemon is.

use std::{fs, path::PathBuf};

use gvpn_sdk::{Client, Error};

/// The daemon's client.
pub(crate) fn find() -> Result<Client, Error> {
    let home = home();
    let read = |name: &str| {
        let text = fs::read_to_string(home.as_ref()?.join(name)).ok()?;
        Some(text.trim().to_owned()).filter(|t| !t.is_empty())
    };
    let url = set("GVPN_API_URL")
        .or_else(|| set("YAGNA_API_URL"))
        .or_else(|| read("api.url"))
        .unwrap_or_else(|| gvpn_sdk::DEFAULT_URL.to_owned());
    let key = set("GVPN_APPKEY").or_else(|| set("YAGNA_APPKEY")).or_else(|| read("appkey"));
    Client::new(&url, key.as_deref())
}

/// The data directory of the `gvpn` command.
fn home() -> Option<PathBuf> {
    let data = set("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    set("GVPN_DATA_DIR").map(PathBuf::from).or_else(|| Some(data?.join("gvpn")))
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
