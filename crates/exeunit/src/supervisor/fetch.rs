//! Files from and to the web, and images.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use gvpn_runtime::Payload;
use sha3::{Digest, Sha3_224, Sha3_256, Sha3_384, Sha3_512};

use super::Unit;
use crate::wire::Request;

/// Without a byte for this long, a transfer has failed.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(30);

/// Writes what `url` answers into `file`.
pub(super) async fn download(url: &str, mut file: File) -> Result<(), String> {
    let wanted = url.to_owned();
    let downloaded = tokio::task::spawn_blocking(move || {
        let response = agent().get(&wanted).call().map_err(|e| e.to_string())?;
        let expected = response.body().content_length();
        let mut body = response.into_body().into_reader();
        let copied = io::copy(&mut body, &mut file).map_err(|e| e.to_string())?;
        match expected {
            Some(expected) if expected != copied => {
                Err(format!("{copied} of {expected} bytes came"))
            }
            _ => Ok(()),
        }
    });
    let downloaded = downloaded.await.map_err(|e| e.to_string())?;
    downloaded.map_err(|e| format!("cannot fetch {url}: {e}"))
}

/// Sends `file` to `url` with PUT.
pub(super) async fn upload(file: File, url: &str) -> Result<(), String> {
    let wanted = url.to_owned();
    let uploaded = tokio::task::spawn_blocking(move || {
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        let request = agent().put(&wanted).header("Content-Length", length.to_string());
        request.send(ureq::SendBody::from_owned_reader(file)).map(drop).map_err(|e| e.to_string())
    });
    let uploaded = uploaded.await.map_err(|e| e.to_string())?;
    uploaded.map_err(|e| format!("cannot send to {url}: {e}"))
}

fn agent() -> ureq::Agent {
    static AGENT: OnceLock<ureq::Agent> = OnceLock::new();
    AGENT
        .get_or_init(|| {
            // Whoever is first wins; another provider that is already there serves as well.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            ureq::Agent::config_builder()
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(SILENCE))
                .timeout_send_request(Some(SILENCE))
                .build()
                .into()
        })
        .clone()
}

impl Unit {
    /// The payload, its image fetched to this host.
    pub(super) async fn payload_with_image(&self) -> Result<&Payload, String> {
        if let Some(image) = &self.config.image {
            let path = self.fetch_image(image).await.map_err(|e| format!("image: {e}"))?;
            self.payload.set_image(path);
        }
        Ok(&self.payload)
    }

    async fn fetch_image(&self, image: &str) -> Result<PathBuf, String> {
        let (digest, url) = split_image(image)?;
        let Some(url) = as_remote(url) else {
            let path = PathBuf::from(url.strip_prefix("file://").unwrap_or(url));
            check(digest, &path).await?;
            return Ok(path);
        };
        let path = match digest {
            Some(digest) => self.config.images.join(format!("fetched-{digest}")),
            None => self.config.workdir.join("fetched"),
        };
        if path.exists() && digest.is_some() {
            return Ok(path);
        }
        let partial = self.config.workdir.join("fetching");
        let text = |e: io::Error| format!("cannot write {}: {e}", partial.display());
        std::fs::create_dir_all(&self.config.images).map_err(text)?;
        let file = File::create(&partial).map_err(text)?;
        if url.starts_with("gftp:") {
            let request = Request::Fetch { url: url.to_owned() };
            self.daemon.ask(request, vec![file.into()]).await?;
        } else {
            download(url, file).await?;
        }
        check(digest, &partial).await?;
        std::fs::rename(&partial, &path).map_err(text)?;
        Ok(path)
    }
}

/// Splits `hash:sha3:HEX:URL`; anything else is an URL or a path without a digest.
fn split_image(image: &str) -> Result<(Option<&str>, &str), String> {
    let Some(rest) = image.strip_prefix("hash:").or_else(|| image.strip_prefix("hash://")) else {
        return Ok((None, image));
    };
    let parts = rest.strip_prefix("sha3:").and_then(|rest| rest.split_once(':'));
    match parts {
        Some((digest, url))
            if !url.is_empty()
                && digest.len() >= 56
                && digest.bytes().all(|b| b.is_ascii_hexdigit()) =>
        {
            Ok((Some(digest), url))
        }
        _ => Err(format!("`{image}` is not of the form hash:sha3:HEX:URL")),
    }
}

fn as_remote(url: &str) -> Option<&str> {
    ["http://", "https://", "gftp:"].iter().any(|scheme| url.starts_with(scheme)).then_some(url)
}

async fn check(digest: Option<&str>, path: &Path) -> Result<(), String> {
    let Some(wanted) = digest.map(str::to_ascii_lowercase) else { return Ok(()) };
    let path = path.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let mut file = File::open(&path)?;
        Ok::<_, io::Error>(match wanted.len() {
            56 => (hash::<Sha3_224>(&mut file)?, wanted),
            64 => (hash::<Sha3_256>(&mut file)?, wanted),
            96 => (hash::<Sha3_384>(&mut file)?, wanted),
            _ => (hash::<Sha3_512>(&mut file)?, wanted),
        })
    });
    let (found, wanted) = found.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    if found == wanted {
        Ok(())
    } else {
        Err(format!("it is not what was asked for: its SHA-3 digest is {found}, not {wanted}"))
    }
}

fn hash<D: Digest + io::Write>(file: &mut File) -> io::Result<String> {
    let mut digest = D::new();
    io::copy(file, &mut digest)?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_texts_are_read() {
        let hex = "ab".repeat(28);
        let text = format!("hash:sha3:{hex}:http://host:8000/x.gvmi");
        assert_eq!(split_image(&text), Ok((Some(hex.as_str()), "http://host:8000/x.gvmi")));
        assert_eq!(split_image("/images/a.squashfs"), Ok((None, "/images/a.squashfs")));
        for wrong in ["hash:sha3:abc:http://x", "hash:md5:00:http://x", "hash:sha3:"] {
            assert!(split_image(wrong).is_err(), "{wrong}");
        }
    }
}
