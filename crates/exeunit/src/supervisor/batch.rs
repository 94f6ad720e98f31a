//! Running ExeScripts.

use std::{rc::Rc, time::Instant};

use chrono::Utc;
use gvpn_model::{
    ActivityState, BatchEvent, BatchEventKind, BatchId, CommandResult, ExeCommand, ExeScript,
    ResultKind, RunArgs,
};
use gvpn_runtime::{NetworkConfig, Output, Program};
use sha3::{Digest, Sha3_256};
use tokio::sync::mpsc;

use super::{
    Unit,
    output::{Captured, capture},
};
use crate::wire::{Report, Request};

/// A script waiting to be run.
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) script: ExeScript,
    pub(super) networks: Vec<NetworkConfig>,
}

/// How a command ended.
#[derive(Default)]
struct Ending {
    code: i32,
    stdout: Option<String>,
    stderr: Option<String>,
    message: Option<String>,
}

impl Ending {
    fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: Some(message.into()), ..Self::default() }
    }
}

impl From<Result<String, String>> for Ending {
    fn from(outcome: Result<String, String>) -> Self {
        match outcome {
            Ok(stdout) => {
                Self { stdout: Some(stdout).filter(|text| !text.is_empty()), ..Self::default() }
            }
            Err(message) => Self::failed(message),
        }
    }
}

impl Unit {
    /// Runs batches one after the other; ends, with the reason, when one of them terminates the
    /// activity.
    pub(super) async fn run_batches(
        self: Rc<Self>,
        mut waiting: mpsc::UnboundedReceiver<Batch>,
    ) -> Option<String> {
        while let Some(batch) = waiting.recv().await {
            self.run_batch(batch).await;
            if self.state.get().0 == ActivityState::Terminated {
                return None;
            }
        }
        std::future::pending().await
    }

    async fn run_batch(self: &Rc<Self>, batch: Batch) {
        let mut digest = Sha3_256::new();
        let last = batch.script.len().saturating_sub(1);
        for (index, command) in batch.script.iter().enumerate() {
            let place = Place { batch: batch.id, index: index as u32 };
            let shown = serde_json::to_value(command).unwrap_or_default();
            self.running.set(Some(place));
            self.event(place, BatchEventKind::Started { command: shown }).await;
            let ending = self.run_command(command, place, &batch.networks, &digest).await;
            self.running.set(None);
            let finished = BatchEventKind::Finished {
                return_code: ending.code,
                message: ending.message.clone(),
            };
            self.event(place, finished).await;
            let is_ok = ending.code == 0;
            let result = CommandResult {
                index: place.index,
                event_date: Utc::now(),
                result: if is_ok { ResultKind::Ok } else { ResultKind::Error },
                stdout: ending.stdout,
                stderr: ending.stderr,
                message: ending.message,
                is_batch_finished: index == last || !is_ok,
            };
            digest.update(serde_json::to_vec(&result).unwrap_or_default());
            self.daemon.report(Report::Result { batch: batch.id, result }).await;
            if !is_ok {
                return;
            }
        }
    }

    /// Ends, in the eyes of the requestor, the command that was running when the activity ended.
    pub(super) async fn interrupt(&self, reason: Option<&str>) {
        let Some(place) = self.running.take() else { return };
        let message =
            Some(format!("the activity ended: {}", reason.unwrap_or("it was terminated")));
        let finished = BatchEventKind::Finished { return_code: 1, message: message.clone() };
        self.event(place, finished).await;
        let result = CommandResult {
            index: place.index,
            event_date: Utc::now(),
            result: ResultKind::Error,
            stdout: None,
            stderr: None,
            message,
            is_batch_finished: true,
        };
        self.daemon.report(Report::Result { batch: place.batch, result }).await;
    }

    async fn event(&self, place: Place, kind: BatchEventKind) {
        let Place { batch: batch_id, index } = place;
        let event = BatchEvent { batch_id, index, timestamp: Utc::now(), kind };
        self.daemon.report(Report::Batch(event)).await;
    }

    async fn run_command(
        self: &Rc<Self>,
        command: &ExeCommand,
        place: Place,
        networks: &[NetworkConfig],
        digest: &Sha3_256,
    ) -> Ending {
        if let Err(message) = self.check_state(command) {
            return Ending::failed(message);
        }
        match command {
            ExeCommand::Sign {} => {
                let digest = digest.clone().finalize().into();
                let signed = self.daemon.ask(Request::Sign { digest }, vec![]).await;
                signed.map(Option::unwrap_or_default).into()
            }
            ExeCommand::Deploy(args) => {
                self.set_state(ActivityState::Initialized, Some(ActivityState::Deployed)).await;
                let deployed = self.deploy(args, networks).await;
                if deployed.is_err() {
                    self.set_state(ActivityState::Initialized, None).await;
                }
                deployed.into()
            }
            ExeCommand::Start(args) => self.start(&args.args).await.into(),
            ExeCommand::Run(args) => self.run_program(args, place).await,
            ExeCommand::Transfer(args) => self.transfer(args).await.map(|()| String::new()).into(),
            ExeCommand::Terminate {} => {
                let now = self.state.get().0;
                self.set_state(now, Some(ActivityState::Terminated)).await;
                self.stop().await;
                Ending::default()
            }
        }
    }

    fn check_state(&self, command: &ExeCommand) -> Result<(), String> {
        let state = self.state.get().0;
        let (name, wanted) = match command {
            ExeCommand::Deploy(_) => ("deploy", ActivityState::Initialized),
            ExeCommand::Start(_) => ("start", ActivityState::Deployed),
            ExeCommand::Run(_) => ("run", ActivityState::Ready),
            ExeCommand::Transfer(_) => ("transfer", ActivityState::Ready),
            ExeCommand::Sign {} | ExeCommand::Terminate {} => return Ok(()),
        };
        if state == wanted {
            return Ok(());
        }
        Err(format!("`{name}` needs the activity in state {wanted:?}; it is in state {state:?}"))
    }

    async fn start(self: &Rc<Self>, args: &[String]) -> Result<String, String> {
        self.set_state(ActivityState::Deployed, Some(ActivityState::Ready)).await;
        let started = self.runtime.start(&self.payload, args).await;
        if let Err(e) = started {
            self.set_state(ActivityState::Deployed, None).await;
            return Err(e.to_string());
        }
        if let Err(reason) = self.make_volumes().await {
            // What cannot be used as it was wanted does not run on.
            let _ = self.died.send(reason.clone());
            return Err(reason);
        }
        self.started.set(Some(Instant::now()));
        self.set_state(ActivityState::Ready, None).await;
        tokio::task::spawn_local(self.clone().watch());
        Ok(String::new())
    }

    async fn run_program(&self, args: &RunArgs, place: Place) -> Ending {
        let captures = args.capture.clone().unwrap_or_default();
        let piped = || -> std::io::Result<_> { Ok((std::io::pipe()?, std::io::pipe()?)) };
        let ((stdout, to_stdout), (stderr, to_stderr)) = match piped() {
            Ok(pipes) => pipes,
            Err(e) => return Ending::failed(format!("cannot make a pipe: {e}")),
        };
        let program = Program {
            path: args.entry_point.clone(),
            args: args.args.clone(),
            env: self.env.borrow().clone(),
            directory: None,
        };
        let output = Output { stdout: to_stdout.into(), stderr: to_stderr.into() };
        let (done, over) = tokio::sync::watch::channel(false);
        let run = async {
            let exit = self.runtime.run(&self.payload, program, output).await;
            let _ = done.send(true);
            exit
        };
        let stdout = capture(stdout, captures.stdout.as_ref(), over.clone(), |text| {
            self.event(place, BatchEventKind::Stdout(text))
        });
        let stderr = capture(stderr, captures.stderr.as_ref(), over, |text| {
            self.event(place, BatchEventKind::Stderr(text))
        });
        let (exit, stdout, stderr) = tokio::join!(run, stdout, stderr);
        let (stdout, stderr) = (stdout.map(Captured::into_text), stderr.map(Captured::into_text));
        match exit {
            Ok(exit) if exit.code() == 0 => Ending { stdout, stderr, ..Ending::default() },
            Ok(exit) => {
                let message = Some(format!("ExeScript command exited with code {}", exit.code()));
                Ending { code: exit.code(), stdout, stderr, message }
            }
            Err(e) => Ending { stdout, stderr, ..Ending::failed(e.to_string()) },
        }
    }
}

/// A command's place.
#[derive(Clone, Copy)]
pub(super) struct Place {
    batch: BatchId,
    index: u32,
}
