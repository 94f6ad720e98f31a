//! Builds the guest agent: a static program, whatever this crate is built for, to be carried in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGE: &str = "gvpn-guest";
/// The directories that its own packages are in.
const SOURCES: [&str; 2] = ["crates/guest", "crates/link"];

pub(super) fn embed() {
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..");
    for path in SOURCES.into_iter().chain(["Cargo.toml", "Cargo.lock"]) {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let agent = out.join("guest-agent");
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        // There are no virtual machines on other processors yet.
        fs::write(&agent, []).expect("OUT_DIR can be written");
        return;
    }
    let (note, made_of) = (out.join("guest-agent.made-of"), made_of(&root));
    if agent.exists() && fs::read_to_string(&note).is_ok_and(|noted| noted == made_of) {
        return;
    }
    let target_dir = shared_directory(&out);
    build(&root, &target_dir);
    let built = target_dir.join(TARGET).join("release").join(PACKAGE);
    fs::copy(&built, &agent).expect("the guest agent was built");
    fs::write(&note, made_of).expect("OUT_DIR can be written");
}

/// Where every profile of this crate has its agent built: `OUT_DIR` is `TARGET/PROFILE/build/NAME/out`.
fn shared_directory(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).join("guest-agent")
}

/// What the agent is made of: its sources, and which packages the lock file has for it. Most changes of
/// the lock file are about others.
fn made_of(root: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    for directory in SOURCES.into_iter().chain(["crates/runtime/build"]) {
        hash_files(&root.join(directory), &mut hasher);
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    let packages = packages(&lock);
    let mut wanted = vec![PACKAGE];
    let mut seen = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if seen.insert(name) {
            // A name may stand for several versions, of which each is taken.
            for text in packages.get(name).into_iter().flatten() {
                text.hash(&mut hasher);
                wanted.extend(dependencies(text));
            }
        }
    }
    format!("{:016x}", hasher.finish())
}

fn hash_files(path: &Path, hasher: &mut DefaultHasher) {
    let Ok(entries) = fs::read_dir(path) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            hash_files(&path, hasher);
        } else {
            (path.file_name(), fs::read(&path).unwrap_or_default()).hash(hasher);
        }
    }
}

/// The texts of a lock file's packages, by name.
fn packages(lock: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for text in lock.split("[[package]]\n").skip(1) {
        let name = text.lines().find_map(|line| line.strip_prefix("name = "));
        all.entry(name.unwrap_or_default().trim_matches('"')).or_default().push(text);
    }
    all
}

/// The names that follow `dependencies = [`: `"name"` or `"name version"`.
fn dependencies(text: &str) -> impl Iterator<Item = &str> {
    let listed = text.split_once("dependencies = [").map_or("", |(_, rest)| rest);
    let quoted = listed.lines().filter_map(|line| line.trim().strip_prefix('"'));
    quoted.filter_map(|line| line.split(['"', ' ']).next())
}

fn build(root: &Path, target_dir: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo.current_dir(root).args(["build", "--release", "-p", PACKAGE, "--target", TARGET]);
    cargo.arg("--target-dir").arg(target_dir);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PROFILE_") || name.starts_with("CARGO_CFG_") {
            cargo.env_remove(name);
        }
    }
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOCFLAGS",
    ] {
        cargo.env_remove(name);
    }
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    // Small, and quickly built: link-time optimisation takes longer than all the rest.
    for (name, value) in [
        ("OPT_LEVEL", "s"),
        ("LTO", "off"),
        ("CODEGEN_UNITS", "16"),
        ("PANIC", "abort"),
        ("STRIP", "true"),
        ("DEBUG", "false"),
    ] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the guest agent (crates/guest) was not built: see above");
}
