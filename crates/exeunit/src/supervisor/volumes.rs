//! Volumes of a `deploy`: directories that are there, and may be written, once the payload runs.

use gvpn_runtime::{Output, Program};
use serde_json::Value;

use super::Unit;

/// The most volumes of a payload.
const MOST: usize = 64;

/// The paths that a `deploy` names: the keys of an object, or the texts of a list.
pub(super) fn paths(volumes: &Value) -> Result<Vec<String>, String> {
    let paths: Vec<String> = match volumes {
        Value::Null => Vec::new(),
        Value::Object(by_path) => by_path.keys().cloned().collect(),
        Value::Array(list) => {
            let texts = list.iter().map(|path| path.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or("a list of volumes must be one of paths")?
        }
        _ => return Err("volumes must be an object by path".to_owned()),
    };
    if paths.len() > MOST {
        return Err(format!("{} volumes are too many: {MOST} are the most", paths.len()));
    }
    let odd = |path: &&String| {
        !path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..")
    };
    match paths.iter().find(odd) {
        Some(path) => Err(format!("`{path}` is no place for a volume: its path must be absolute")),
        None => Ok(paths),
    }
}

impl Unit {
    /// Makes the directories with the payload's own `mkdir`, as whoever runs its programs.
    pub(super) async fn make_volumes(&self) -> Result<(), String> {
        let paths = self.volumes.borrow().clone();
        if paths.is_empty() {
            return Ok(());
        }
        let failed = |why: &str| format!("the volumes {} cannot be made: {why}", paths.join(", "));
        let null = || std::fs::File::options().write(true).open("/dev/null");
        let (stdout, stderr) = match (null(), null()) {
            (Ok(stdout), Ok(stderr)) => (stdout.into(), stderr.into()),
            (Err(e), _) | (_, Err(e)) => return Err(failed(&e.to_string())),
        };
        let args = ["-p", "--"].map(str::to_owned).into_iter().chain(paths.iter().cloned());
        let program =
            Program { path: "mkdir".to_owned(), args: args.collect(), ..Program::default() };
        let ran = self.runtime.run(&self.payload, program, Output { stdout, stderr }).await;
        match ran {
            Ok(exit) if exit.code() == 0 => Ok(()),
            Ok(exit) => Err(failed(&format!("mkdir exited with code {}", exit.code()))),
            Err(e) => Err(failed(&e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_are_named_by_absolute_paths() {
        let golem = json!({ "/data": { "storage": { "size": "0.1g", "errors": "panic" } } });
        assert_eq!(paths(&golem).unwrap(), ["/data"]);
        assert_eq!(paths(&json!(["/a", "/b/c"])).unwrap(), ["/a", "/b/c"]);
        assert!(paths(&Value::Null).unwrap().is_empty());
        for odd in [json!("/a"), json!([1]), json!(["a"]), json!({ "/a/../b": {} }), json!(["/\0"])]
        {
            assert!(paths(&odd).is_err(), "{odd}");
        }
    }
}
