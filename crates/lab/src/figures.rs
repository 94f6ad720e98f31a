//! Figures in the pages of `docs/`, written by whatever measured them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Set this to have tests write what they measured; benchmarks always do.
pub const VARIABLE: &str = "GVPN_FIGURES";

/// Whether a test shall write its figures.
pub fn wanted() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Puts `text` between the marks `<!-- NAME -->` and `<!-- end of NAME -->` of a page in `docs/`, the
/// nearest above the working directory: a program may run from another checkout than it was built in.
///
/// # Errors
/// When the page is not found, cannot be read or written, or has no such marks.
pub fn write(page: &str, name: &str, text: &str) -> io::Result<()> {
    let path = nearest(&std::env::current_dir()?, &Path::new("docs").join(page))?;
    let before = fs::read_to_string(&path)?;
    let after = replaced(&before, name, text)
        .ok_or_else(|| io::Error::other(format!("docs/{page} has no place for `{name}`")))?;
    fs::write(path, after)
}

/// Under which conditions something was measured: a sentence to stand before its table.
pub fn conditions() -> String {
    let build = if cfg!(debug_assertions) { "A debug build" } else { "An optimized build" };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{build}; load of the machine at the end: {load}.")
}

fn nearest(from: &Path, page: &Path) -> io::Result<PathBuf> {
    let found = from.ancestors().map(|above| above.join(page)).find(|path| path.is_file());
    found.ok_or_else(|| {
        io::Error::other(format!("{} is nowhere above {}", page.display(), from.display()))
    })
}

fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = page.split_once(&start)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{start}{}\n{end}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{nearest, replaced};

    #[test]
    fn the_page_is_the_nearest_above() {
        let top = tempfile::tempdir().unwrap();
        let (here, page) = (top.path().join("crates/some"), Path::new("docs/page.md"));
        std::fs::create_dir_all(&here).unwrap();
        std::fs::create_dir_all(top.path().join("docs")).unwrap();
        assert!(nearest(&here, page).is_err());
        std::fs::write(top.path().join(page), "").unwrap();
        assert_eq!(nearest(&here, page).unwrap(), top.path().join(page));
    }

    #[test]
    fn text_goes_between_its_marks() {
        let page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n";
        let new = replaced(page, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n");
        assert_eq!(replaced(page, "y", "new"), None);
    }
}
