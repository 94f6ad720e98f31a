//! Activities.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hyper::{Method, Response, body::Incoming};

use gvpn_model::{
    ActivityId, AgreementId, BatchId, Capture, CommandResult, DeployArgs, DeployNetwork,
    ExeCommand, NodeId, ResultKind, RunArgs, StartArgs, StatePair, StreamCapture, TransferArgs,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{BatchEvents, Client, Error};

/// How long one request for results waits at the daemon, in seconds.
const POLL: u32 = 20;
/// How long a daemon may be away, such as while it is started anew.
const AWAY: Duration = Duration::from_secs(15);

/// An activity as the daemon lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityInfo {
    /// Its id.
    pub id: ActivityId,
    /// The agreement it runs under.
    pub agreement: AgreementId,
    /// Who runs it.
    pub provider: NodeId,
    /// Who asked for it.
    pub requestor: NodeId,
    /// Its state, and the next one during a change.
    pub state: StatePair,
    /// Why it ended.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was made.
    #[serde(default)]
    pub created: Option<String>,
}

/// A program to run in a payload.
#[derive(Debug, Clone, Default)]
pub struct Run {
    entry_point: String,
    args: Vec<String>,
}

impl Run {
    /// The program at this path of the payload.
    pub fn new(entry_point: impl Into<String>) -> Self {
        Self { entry_point: entry_point.into(), args: Vec::new() }
    }

    /// A shell command line.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new("/bin/sh").arg("-c").arg(line)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The command with its output captured at its end.
    pub fn captured(self) -> ExeCommand {
        self.command(&StreamCapture::AtEnd(json!({ "format": "string" })))
    }

    /// The command with its output as events while it runs.
    pub fn streamed(self) -> ExeCommand {
        self.command(&StreamCapture::Stream(json!({})))
    }

    fn command(self, capture: &StreamCapture) -> ExeCommand {
        let capture = Capture { stdout: Some(capture.clone()), stderr: Some(capture.clone()) };
        ExeCommand::Run(RunArgs {
            entry_point: self.entry_point,
            args: self.args,
            capture: Some(capture),
        })
    }
}

/// What a program left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// An activity that this node requested.
#[derive(Debug, Clone)]
pub struct Activity {
    client: Client,
    id: ActivityId,
}

impl Activity {
    pub(crate) fn new(client: Client, id: ActivityId) -> Self {
        Self { client, id }
    }

    /// Its id.
    pub fn id(&self) -> ActivityId {
        self.id
    }

    /// Its present state, asked of the provider.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn state(&self) -> Result<StatePair, Error> {
        #[derive(Deserialize)]
        struct Row {
            state: StatePair,
        }
        let row: Row = self.client.http().get(&self.path("/state")).await?;
        Ok(row.state)
    }

    /// Deploys the payload into these networks and starts it.
    ///
    /// # Errors
    /// [`Error::Command`] with the ExeUnit's reason.
    pub async fn deploy(&self, networks: &[DeployNetwork]) -> Result<(), Error> {
        self.deploy_with(DeployArgs { net: networks.to_vec(), ..DeployArgs::default() }).await
    }

    /// Deploys the payload and starts it.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    pub async fn deploy_with(&self, deploy: DeployArgs) -> Result<(), Error> {
        let script = [ExeCommand::Deploy(deploy), ExeCommand::Start(StartArgs::default())];
        self.exec(&script).await?.wait().await.map(drop)
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// [`Error::Command`] when it cannot be run or ends with an exit code other than 0.
    pub async fn run(&self, program: &Run) -> Result<Output, Error> {
        let results = self.exec(&[program.clone().captured()]).await?.wait().await?;
        let last = results.into_iter().next_back();
        Ok(last.map_or_else(Output::default, |result| Output {
            stdout: result.stdout.unwrap_or_default(),
            stderr: result.stderr.unwrap_or_default(),
        }))
    }

    /// Moves a file: `gftp://`, `http(s)://` or `container:/path` on either side.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub async fn transfer(&self, from: &str, to: &str) -> Result<(), Error> {
        let args = TransferArgs { from: from.to_owned(), to: to.to_owned() };
        self.exec(&[ExeCommand::Transfer(args)]).await?.wait().await.map(drop)
    }

    /// Sends a script; it runs at the provider whether anyone waits or not.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a script that the activity's state does not allow.
    pub async fn exec(&self, script: &[ExeCommand]) -> Result<Batch, Error> {
        let text = serde_json::to_string(script).map_err(|e| Error::answer("exec", e))?;
        let id: BatchId =
            self.client.http().post(&self.path("/exec"), &json!({ "text": text })).await?;
        let last = script.len().checked_sub(1).and_then(|last| u32::try_from(last).ok());
        Ok(Batch { last, ..self.batch(id) })
    }

    /// A handle of a script sent earlier.
    pub fn batch(&self, id: BatchId) -> Batch {
        Batch { activity: self.clone(), id, last: None }
    }

    /// What the activity has used, by counter: seconds of wall-clock time and of CPU time, bytes of
    /// memory now, bytes sent and received in its networks.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn usage(&self) -> Result<BTreeMap<String, f64>, Error> {
        #[derive(Deserialize)]
        struct Row {
            #[serde(default)]
            counters: BTreeMap<String, f64>,
        }
        let row: Row = self.client.http().get(&self.path("/usage")).await?;
        Ok(row.counters)
    }

    /// Ends the activity.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn destroy(&self) -> Result<(), Error> {
        self.client.http().delete(&self.path("")).await
    }

    fn path(&self, rest: &str) -> String {
        format!("/activity-api/v1/activity/{}{rest}", self.id)
    }
}

/// A script that was sent to an activity.
#[derive(Debug, Clone)]
pub struct Batch {
    activity: Activity,
    id: BatchId,
    /// Position of the last command, where the script is known.
    last: Option<u32>,
}

impl Batch {
    /// Its id.
    pub fn id(&self) -> BatchId {
        self.id
    }

    /// The results so far; waits up to `timeout` seconds for the batch to end.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn results(&self, timeout: u32) -> Result<Vec<CommandResult>, Error> {
        self.activity.client.http().get(&format!("{}?timeout={timeout}", self.path())).await
    }

    /// Waits for the end; all results.
    ///
    /// # Errors
    /// [`Error::Command`] for the first command that failed.
    pub async fn wait(&self) -> Result<Vec<CommandResult>, Error> {
        let mut heard = Instant::now();
        let results = loop {
            let results = match self.results(POLL).await {
                // The provider is silent; the daemon decides when it counts as gone.
                Err(Error::Timeout(_)) => {
                    heard = Instant::now();
                    continue;
                }
                Err(Error::Unreachable { .. }) if heard.elapsed() < AWAY => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
                results => results?,
            };
            heard = Instant::now();
            if results.last().is_some_and(|last| last.is_batch_finished) {
                break results;
            }
        };
        match results.iter().find(|r| r.result == ResultKind::Error) {
            None => Ok(results),
            Some(failed) => Err(Error::Command {
                index: failed.index,
                message: failed.message.clone().unwrap_or_default(),
                stderr: failed.stderr.clone().unwrap_or_default(),
            }),
        }
    }

    /// The batch's events from its beginning, then live, until its end.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn events(&self) -> Result<BatchEvents, Error> {
        BatchEvents::open(self.clone()).await
    }

    /// Whether nothing can follow the end of command `index`.
    pub(crate) async fn ends_with(&self, index: u32) -> Result<bool, Error> {
        match self.last {
            Some(last) => Ok(index >= last),
            None => Ok(self.results(1).await?.last().is_some_and(|last| last.is_batch_finished)),
        }
    }

    pub(crate) async fn open_events(&self) -> Result<Response<Incoming>, Error> {
        self.activity.client.http().send(Method::GET, &self.path(), "text/event-stream", None).await
    }

    fn path(&self) -> String {
        self.activity.path(&format!("/exec/{}", self.id))
    }
}
