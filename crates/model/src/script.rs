//! ExeScripts and their results, in the JSON that Golem's clients write and read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::BatchId;

/// A list of commands for an ExeUnit, run in order until one fails.
pub type ExeScript = Vec<ExeCommand>;

/// Why a text is not an ExeScript.
#[derive(Debug, thiserror::Error)]
#[error("the ExeScript is not valid: {0}")]
pub struct ScriptError(#[from] serde_json::Error);

/// One command of an ExeScript: a JSON object with a single key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExeCommand {
    /// Ask for a signature over the results so far.
    Sign {},
    /// Bring the activity's file system and networks into being.
    Deploy(DeployArgs),
    /// Start the runtime.
    Start(StartArgs),
    /// Run a program in the payload.
    Run(RunArgs),
    /// Move a file.
    Transfer(TransferArgs),
    /// End the activity.
    Terminate {},
}

impl ExeCommand {
    /// Reads a script from the text that `exec` carries.
    ///
    /// # Errors
    /// [`ScriptError`] with the place where the text stops making sense.
    pub fn parse_script(text: &str) -> Result<ExeScript, ScriptError> {
        Ok(serde_json::from_str(text)?)
    }
}

/// Arguments of `deploy`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployArgs {
    /// Networks the payload joins.
    pub net: Vec<DeployNetwork>,
    /// Further lines of `/etc/hosts`: name to address.
    pub hosts: BTreeMap<String, String>,
    /// The payload's host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Environment of every `run`.
    pub env: BTreeMap<String, String>,
    /// Volumes by path, as clients send them.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub volumes: serde_json::Value,
    /// Whether the client wants progress events.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub progress: serde_json::Value,
}

/// One network of a `deploy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeployNetwork {
    /// Network id, 32 hexadecimal digits.
    pub id: String,
    /// The network's address, bare or CIDR.
    pub ip: String,
    /// Dotted mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// Gateway address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The payload's own address.
    pub node_ip: String,
    /// Address to node id of the other members known to the client.
    #[serde(default)]
    pub nodes: BTreeMap<String, String>,
}

/// Arguments of `start`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartArgs {
    /// Extra arguments for the runtime.
    pub args: Vec<String>,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunArgs {
    /// Path of the program in the payload's file system.
    pub entry_point: String,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// What becomes of its output.
    pub capture: Option<Capture>,
}

/// What becomes of a command's output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capture {
    /// Standard output.
    pub stdout: Option<StreamCapture>,
    /// Standard error.
    pub stderr: Option<StreamCapture>,
}

/// How one stream is captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StreamCapture {
    /// Events while the command runs.
    Stream(serde_json::Value),
    /// One result at its end.
    AtEnd(serde_json::Value),
}

/// Arguments of `transfer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferArgs {
    /// Source: `gftp://NODE/HASH`, `http(s)://..` or `container:/path`.
    pub from: String,
    /// Destination, in the same forms.
    pub to: String,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ResultKind {
    /// As it should.
    Ok,
    /// With an error; the rest of the script did not run.
    Error,
}

/// One element of a batch's results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CommandResult {
    /// Position of the command in its script.
    pub index: u32,
    /// When it ended.
    #[serde(deserialize_with = "crate::moment::deserialize")]
    pub event_date: DateTime<Utc>,
    /// How it ended.
    pub result: ResultKind,
    /// Captured standard output.
    pub stdout: Option<String>,
    /// Captured standard error.
    pub stderr: Option<String>,
    /// What to tell the user.
    pub message: Option<String>,
    /// Whether no further result will come.
    pub is_batch_finished: bool,
}

/// One event of a running batch, as the event stream carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchEvent {
    /// The batch.
    pub batch_id: BatchId,
    /// Position of the command in its script.
    pub index: u32,
    /// When it happened.
    #[serde(deserialize_with = "crate::moment::deserialize")]
    pub timestamp: DateTime<Utc>,
    /// What happened.
    pub kind: BatchEventKind,
}

/// What happened in a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BatchEventKind {
    /// A command began.
    Started {
        /// The command.
        command: serde_json::Value,
    },
    /// A piece of standard output.
    Stdout(String),
    /// A piece of standard error.
    Stderr(String),
    /// A command ended.
    Finished {
        /// 0 for success.
        return_code: i32,
        /// What to tell the user.
        message: Option<String>,
    },
}

/// Life of an activity: New or Initialized, Deployed, Ready, Terminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ActivityState {
    /// Known, its ExeUnit not yet up.
    New,
    /// Its ExeUnit waits for `deploy`.
    Initialized,
    /// Its image and networks are there; waits for `start`.
    Deployed,
    /// Runs.
    Ready,
    /// Ended.
    Terminated,
}

/// The present state and, during a change, the next: `["Ready", null]`.
pub type StatePair = (ActivityState, Option<ActivityState>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yapapi_and_golem_js_scripts_are_read() {
        let text = r#"[{"deploy": {"net": [{"id": "28ffdc9f01314938b1b4c9f9dd933534", "ip": "192.168.0.0",
            "mask": "255.255.255.0", "nodeIp": "192.168.0.2", "nodes": {"192.168.0.1": "0x1f"}}]}},
            {"start": {"args": []}}, {"start": {}},
            {"run": {"entry_point": "/bin/sh", "args": ["-c", "true"],
              "capture": {"stdout": {"stream": {}}, "stderr": {"atEnd": {"format": "string"}}}}},
            {"transfer": {"from": "gftp://a/b", "to": "container:/x"}}, {"terminate": {}}, {"sign": {}}]"#;
        let script = ExeCommand::parse_script(text).unwrap();
        assert_eq!(script.len(), 7);
        let ExeCommand::Deploy(deploy) = &script[0] else { panic!("{script:?}") };
        assert_eq!(deploy.net[0].node_ip, "192.168.0.2");
        assert!(ExeCommand::parse_script("[{\"fly\": {}}]").is_err());
    }

    #[test]
    fn moments_are_read_with_and_without_a_zone() {
        for zone in ["", "Z", "+00:00"] {
            let text = format!(
                r#"{{"batch_id": "28ffdc9f01314938b1b4c9f9dd933534", "index": 0,
                    "timestamp": "2026-11-23T08:00:44.285262{zone}", "kind": {{"stdout": "x"}}}}"#
            );
            let event: BatchEvent = serde_json::from_str(&text).unwrap();
            assert_eq!(event.timestamp.timestamp_subsec_micros(), 285_262);
        }
    }
}
