//! The `transfer` command.

use std::{fs::File, os::fd::OwnedFd};

use gvpn_model::TransferArgs;
use gvpn_runtime::Access;

use super::{Unit, fetch};
use crate::wire::Request;

/// One end of a transfer.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    /// A path in the payload.
    Container(&'a str),
    /// `http://` or `https://`.
    Http(&'a str),
    /// `gftp://`, which is the daemon's business.
    Gftp(&'a str),
}

impl<'a> Place<'a> {
    fn parse(url: &'a str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once(':').ok_or_else(|| unknown(url))?;
        match scheme {
            "container" => {
                let path = rest.strip_prefix("//").map_or(rest, |_| &rest[1..]);
                if path.starts_with('/') && !path.contains('\0') {
                    Ok(Self::Container(path))
                } else {
                    Err(format!("`{url}` must name an absolute path, as in container:/tmp/file"))
                }
            }
            "http" | "https" => Ok(Self::Http(url)),
            "gftp" => Ok(Self::Gftp(url)),
            _ => Err(unknown(url)),
        }
    }
}

fn unknown(url: &str) -> String {
    format!("`{url}` is no place for a transfer: use container:, http:, https: or gftp:")
}

impl Unit {
    pub(super) async fn transfer(&self, args: &TransferArgs) -> Result<(), String> {
        let (from, to) = (Place::parse(&args.from)?, Place::parse(&args.to)?);
        match (from, to) {
            (Place::Container(from), Place::Container(to)) => {
                let source = self.open(from, Access::Read).await?;
                let target = self.open(to, Access::Write).await?;
                let copied = target.try_clone().map(|mut target| {
                    tokio::task::spawn_blocking(move || {
                        std::io::copy(&mut &source, &mut target).map(drop)
                    })
                });
                let copied = copied.map_err(|e| e.to_string())?.await;
                copied.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
                self.close(to, target).await
            }
            (Place::Http(from), Place::Container(to)) => {
                let target = self.open(to, Access::Write).await?;
                fetch::download(from, duplicate(&target)?).await?;
                self.close(to, target).await
            }
            (Place::Container(from), Place::Http(to)) => {
                let source = self.open(from, Access::Read).await?;
                fetch::upload(source, to).await
            }
            (Place::Gftp(from), Place::Container(to)) => {
                let target = self.open(to, Access::Write).await?;
                let fetch = Request::Fetch { url: from.to_owned() };
                self.daemon.ask(fetch, vec![OwnedFd::from(duplicate(&target)?)]).await?;
                self.close(to, target).await
            }
            (Place::Container(from), Place::Gftp(to)) => {
                let source = self.open(from, Access::Read).await?;
                let store = Request::Store { url: to.to_owned() };
                self.daemon.ask(store, vec![source.into()]).await.map(drop)
            }
            _ => Err("one end of a transfer must be in the container".to_owned()),
        }
    }

    async fn open(&self, path: &str, access: Access) -> Result<File, String> {
        self.runtime.open(&self.payload, path, access).await.map_err(|e| e.to_string())
    }

    async fn close(&self, path: &str, file: File) -> Result<(), String> {
        self.runtime.close(&self.payload, path, file).await.map_err(|e| e.to_string())
    }
}

fn duplicate(file: &File) -> Result<File, String> {
    file.try_clone().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        assert_eq!(Place::parse("container:/a/b"), Ok(Place::Container("/a/b")));
        assert_eq!(Place::parse("container:///a"), Ok(Place::Container("//a")));
        assert_eq!(Place::parse("https://h/x"), Ok(Place::Http("https://h/x")));
        for wrong in ["container:a", "file:///etc/passwd", "/etc/passwd", ""] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }
}
