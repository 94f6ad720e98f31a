//! `gvpn demo`: the main job, on real payloads, with a line for each thing that must hold.

mod board;
mod checks;
mod image;
mod interrupt;
mod leftovers;
mod measure;
mod payload;
mod proxy;
mod stage;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use crate::failure::{Failure, Outcome};

use board::Board;
use stage::Stage;

/// Options of `gvpn demo`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Leave everything running at the end, for you to play with, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Run all nodes on loopback instead of on hosts of their own (network namespaces).
    #[arg(long)]
    loopback: bool,
    /// Where to put data, images and logs; it must not exist [default: a temporary directory].
    /// It is removed at the end, but for the logs if something failed.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the demo. Call it before any thread exists: an ordinary user's hosts need a user namespace.
pub(crate) fn run(options: &Options) -> Outcome {
    let started = Instant::now();
    interrupt::watch()?;
    let mut dir = Dir::make(options.dir.clone())?;
    let board = Board::new();
    if let Err(failure) = play(options, &dir, &board) {
        board.fail("the demo ran to its end", &failure);
    }
    let outcome = board.finish(started.elapsed());
    if outcome.is_err() && (options.keep || !interrupt::wanted()) {
        let kept = dir.keep_logs();
        board.title(&format!("The logs are kept: {}/*.log", kept.display()));
    }
    outcome
}

fn play(options: &Options, dir: &Dir, board: &Board) -> Outcome {
    let stage = Stage::build(&dir.path, options.loopback)?;
    board.title(&stage.describe());
    let outcome = stage.perform(|| checks::run(&stage, board, options.keep));
    leftovers::after(stage, board);
    outcome
}

/// The demo's directory; removed at the end, but for logs that tell of a failure.
struct Dir {
    path: PathBuf,
    logs: bool,
}

impl Dir {
    fn make(wanted: Option<PathBuf>) -> Outcome<Self> {
        // Not below a directory that is private to its owner: payloads run as other users.
        let path = wanted.unwrap_or_else(|| {
            std::env::temp_dir().join(format!("gvpn-demo-{}", std::process::id()))
        });
        std::fs::create_dir(&path)
            .map_err(Failure::io(format!("cannot make {}", path.display())))?;
        Ok(Self { path, logs: false })
    }

    /// Keeps the daemons' logs when everything else goes; tells where.
    fn keep_logs(&mut self) -> &Path {
        self.logs = true;
        &self.path
    }

    /// Puts the log of each daemon beside its directory, where nothing else is kept.
    fn keep_only_logs(&self) {
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = std::fs::rename(path.join("log"), path.with_extension("log"));
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if self.logs {
            self.keep_only_logs();
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
