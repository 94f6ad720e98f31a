//! What must not be there any more.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    demo::{board::Board, stage::Stage},
    failure::{Failure, Outcome},
};

/// How long the end of a daemon may take.
const GRACE: Duration = Duration::from_secs(15);

/// Ends the daemons and checks that nothing of them stays.
pub(crate) fn after(mut stage: Stage, board: &Board) {
    let dir = stage.dir().to_owned();
    let count = stage.all().count();
    let mut slow = Vec::new();
    let start = Instant::now();
    for daemon in stage.all() {
        match daemon.process.terminate(GRACE) {
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => slow.push(format!("{} ended with {status}", daemon.name)),
            Ok(None) => slow.push(format!("{} did not end", daemon.name)),
            Err(e) => slow.push(e.to_string()),
        }
    }
    let took = format!("{count} daemons in {:.1} s", start.elapsed().as_secs_f32());
    let ended = if slow.is_empty() { Ok(took) } else { Err(Failure::new(slow.join(", "))) };
    board.check("SIGTERM ends every daemon", ended);
    drop(stage);
    board.check("no process, mount or namespace is left", nothing(&dir));
}

/// Processes that ExeUnits and payloads of the demo consist of.
pub(crate) fn activity_processes(dir: &Path) -> Vec<String> {
    processes(dir)
        .into_iter()
        .filter(|(_, words)| words.iter().any(|word| word == "exeunit"))
        .map(|(pid, words)| format!("{pid}: {}", words.join(" ")))
        .collect()
}

/// Files that activities left below the daemons' directories.
pub(crate) fn activity_files(dir: &Path) -> Vec<PathBuf> {
    let daemons = fs::read_dir(dir).into_iter().flatten().flatten();
    daemons
        .map(|daemon| daemon.path().join("activities"))
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .collect()
}

fn nothing(dir: &Path) -> Outcome<String> {
    let start = Instant::now();
    loop {
        let processes: Vec<String> = processes(dir)
            .into_iter()
            .map(|(pid, words)| format!("process {pid}: {}", words.join(" ")))
            .collect();
        let mounts = mounts(dir);
        if processes.is_empty() && mounts.is_empty() {
            return Ok("checked /proc".to_owned());
        }
        if start.elapsed() > GRACE {
            let all: Vec<String> = processes.into_iter().chain(mounts).collect();
            return Err(Failure::new(all.join("; ")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// This process and those that started it.
fn ancestors() -> BTreeSet<u32> {
    let parent = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    std::iter::successors(Some(std::process::id()), parent).take_while(|pid| *pid > 0).collect()
}

/// Processes not of this program that name the demo's directory in their command line, or stand in it.
fn processes(dir: &Path) -> Vec<(u32, Vec<String>)> {
    let mine = ancestors();
    let text = dir.display().to_string();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| !mine.contains(pid))
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<String> = line
                .split(|&b| b == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .filter(|word| !word.is_empty())
                .collect();
            let inside = |link: &str| {
                fs::read_link(format!("/proc/{pid}/{link}")).is_ok_and(|path| path.starts_with(dir))
            };
            let ours =
                words.iter().any(|word| word.contains(&text)) || inside("cwd") || inside("root");
            ours.then_some((pid, words))
        })
        .collect()
}

/// Mounts below the directory, in whatever mount namespace.
fn mounts(dir: &Path) -> Vec<String> {
    let text = dir.display().to_string();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines: BTreeSet<String> = pids
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/mounts")).ok())
        .flat_map(|mounts| {
            let ours = mounts.lines().filter(|line| line.contains(&text));
            ours.map(|line| format!("mount {line}")).collect::<Vec<_>>()
        })
        .collect();
    lines.into_iter().collect()
}
