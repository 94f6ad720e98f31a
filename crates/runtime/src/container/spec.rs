//! What the OCI runtime is told (OCI runtime specification 1.0).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    Limits,
    confinement::{CAPABILITIES, PROC_HIDDEN, PROC_READ_ONLY, REFUSED_CALLS, TTY_GROUP, limits},
};

/// Where process 1 is seen in the container.
pub(super) const KEEPER: &str = "/dev/.keeper";

/// `config.json`.
pub(super) struct Container<'a> {
    pub(super) root: &'a str,
    pub(super) keeper: &'a Path,
    /// Files of `/etc` that init keeps, and where they are.
    pub(super) names: Vec<(PathBuf, &'static str)>,
    pub(super) limits: &'a Limits,
    pub(super) own_ids: bool,
}

impl Container<'_> {
    pub(super) fn document(&self) -> Value {
        let process = Process {
            args: vec![KEEPER.to_owned()],
            env: vec![],
            directory: "/",
            user: json!({ "uid": 0, "gid": 0 }),
            limits: self.limits,
        };
        json!({
            "ociVersion": "1.0.2",
            "process": process.document(),
            "root": { "path": self.root, "readonly": false },
            "mounts": self.mounts(),
            "linux": {
                // The user, network and host name namespaces are those that init is in.
                "namespaces": [
                    { "type": "pid" }, { "type": "ipc" }, { "type": "mount" }, { "type": "cgroup" },
                ],
                "maskedPaths": PROC_HIDDEN.map(|name| format!("/proc/{name}")),
                "readonlyPaths": PROC_READ_ONLY.map(|name| format!("/proc/{name}")),
                "seccomp": seccomp(),
            },
        })
    }

    fn mounts(&self) -> Vec<Value> {
        let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
        let memory = self.limits.memory.map_or("25%".to_owned(), |bytes| (bytes / 4).to_string());
        let shared = format!("size={memory}");
        let group = format!("gid={TTY_GROUP}");
        let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
        if self.own_ids {
            terminals.push(&group);
        }
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=1m"]),
            mount("/dev/pts", "devpts", &terminals),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shared]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ];
        let bind = |from: &Path, to: &str, access: &str| {
            json!({
                "destination": to, "type": "bind", "source": from,
                "options": ["bind", "nosuid", "nodev", access],
            })
        };
        mounts.extend(self.names.iter().map(|(from, to)| bind(from, &format!("/etc/{to}"), "rw")));
        mounts.push(bind(self.keeper, KEEPER, "ro"));
        mounts
    }
}

/// A process of the container, as `exec --process` takes it.
pub(super) struct Process<'a> {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) directory: &'a str,
    pub(super) user: Value,
    pub(super) limits: &'a Limits,
}

impl Process<'_> {
    pub(super) fn document(&self) -> Value {
        let rlimit = |(_, kind, most)| json!({ "type": kind, "soft": most, "hard": most });
        let rlimits: Vec<Value> = limits(self.limits).into_iter().map(rlimit).collect();
        let kept: Vec<&str> = CAPABILITIES.iter().map(|(_, name)| *name).collect();
        json!({
            "terminal": false,
            "user": self.user,
            "args": self.args,
            "env": self.env,
            "cwd": self.directory,
            "capabilities": { "bounding": kept, "effective": kept, "permitted": kept },
            "noNewPrivileges": true,
            "oomScoreAdj": 500,
            "rlimits": rlimits,
        })
    }
}

/// The same refusals as in the sandbox.
fn seccomp() -> Value {
    let names: Vec<&str> = REFUSED_CALLS.iter().map(|(_, name)| *name).collect();
    let users = libc::CLONE_NEWUSER;
    let masked =
        json!({ "index": 0, "value": users, "valueTwo": users, "op": "SCMP_CMP_MASKED_EQ" });
    let is =
        |index: u32, value: u64| json!([{ "index": index, "value": value, "op": "SCMP_CMP_EQ" }]);
    let refuse = |names: Value, args: Value| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM, "args": args });
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            refuse(json!(names), json!([])),
            refuse(json!(["clone", "unshare"]), json!([masked])),
            refuse(json!(["ioctl"]), is(1, libc::TIOCSTI)),
            refuse(json!(["ioctl"]), is(1, libc::TIOCLINUX)),
            refuse(json!(["socket"]), is(0, libc::AF_VSOCK as u64)),
            refuse(json!(["socket"]), is(0, libc::AF_ALG as u64)),
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS },
        ],
    })
}
