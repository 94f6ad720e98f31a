//! Figures in the pages of `docs/`, written by whatever measured them.

use std::{fs, io, path::Path};

/// Set this to have tests write what they measured; benchmarks always do.
pub const VARIABLE: &str = "GVPN_FIGURES";

/// Whether a test shall write its figures.
pub fn wanted() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Puts `text` between the marks `<!-- NAME -->` and `<!-- end of NAME -->` of a page in `docs/`.
///
/// # Errors
/// When the page cannot be read or written, or has no such marks.
pub fn write(page: &str, name: &str, text: &str) -> io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
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

fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = page.split_once(&start)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{start}{}\n{end}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn text_goes_between_its_marks() {
        let page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n";
        let new = replaced(page, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n");
        assert_eq!(replaced(page, "y", "new"), None);
    }
}
