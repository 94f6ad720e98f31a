//! `gvpn demo`: the main job, on real payloads, with a line for each thing that must hold.

mod board;
mod checks;
mod image;
mod leftovers;
mod measure;
mod payload;
mod proxy;
mod stage;

use std::{path::PathBuf, time::Instant};

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
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the demo. Call it before any thread exists: an ordinary user's hosts need a user namespace.
pub(crate) fn run(options: &Options) -> Outcome {
    let started = Instant::now();
    let dir = Dir::make(options.dir.clone())?;
    let stage = Stage::build(dir.path(), options.loopback)?;
    let board = Board::new();
    board.title(&stage.describe());
    let outcome = stage.perform(|| checks::run(&stage, &board, options.keep));
    if let Err(failure) = outcome {
        board.fail("the demo ran to its end", &failure);
    }
    leftovers::after(stage, &board);
    drop(dir);
    board.finish(started.elapsed())
}

/// The demo's directory; removed at the end if the demo made it.
struct Dir {
    path: PathBuf,
}

impl Dir {
    fn make(wanted: Option<PathBuf>) -> Outcome<Self> {
        // Not below a directory that is private to its owner: payloads run as other users.
        let path = wanted.unwrap_or_else(|| {
            std::env::temp_dir().join(format!("gvpn-demo-{}", std::process::id()))
        });
        std::fs::create_dir(&path)
            .map_err(Failure::io(format!("cannot make {}", path.display())))?;
        Ok(Self { path })
    }

    fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
