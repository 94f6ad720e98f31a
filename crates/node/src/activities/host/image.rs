//! Which images a requestor may name.

use std::path::{Path, PathBuf};

use crate::NodeError;

/// The image as the ExeUnit takes it: URLs as they are, paths only below the provider's own
/// image directories, so that no requestor is given the provider's files.
pub(super) fn admit(image: &str, directories: &[PathBuf]) -> Result<String, NodeError> {
    if image.contains("://") || image.starts_with("hash:") {
        return Ok(image.to_owned());
    }
    let found = directories.iter().find_map(|dir| below(dir, Path::new(image)));
    found.map(|path| path.display().to_string()).ok_or_else(|| {
        NodeError::invalid(format!(
            "image `{image}` is not known here: name one in the provider's image directories, or \
             publish it and use its gftp:// or http:// URL"
        ))
    })
}

fn below(directory: &Path, image: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    let path = directory.join(image).canonicalize().ok()?;
    path.starts_with(&directory).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_image_directories() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        std::fs::create_dir_all(images.join("debian")).unwrap();
        std::fs::write(dir.path().join("secret"), "").unwrap();
        std::os::unix::fs::symlink("../secret", images.join("link")).unwrap();
        let dirs = [images.clone()];
        assert!(admit("debian", &dirs).unwrap().ends_with("images/debian"));
        assert!(admit(images.join("debian").to_str().unwrap(), &dirs).is_ok());
        for image in ["../secret", "/etc", "link", "missing", ""] {
            let answer = admit(image, &dirs);
            assert!(answer.is_err() || image.is_empty(), "{image}: {answer:?}");
        }
        assert_eq!(admit("gftp://0x00/ab", &[]).unwrap(), "gftp://0x00/ab");
        assert!(admit("debian", &[]).is_err());
    }
}
