//! The requests and their answers.

use std::{collections::BTreeSet, io, path::PathBuf};

use gvpn_sdk::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

/// What `version` answers. Clients close what they published from 0.7.3 on.
pub(crate) const VERSION: &str = "0.7.3";

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const UNKNOWN_METHOD: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const FAILED: i64 = -32000;

#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Value,
}

struct Fault {
    code: i64,
    message: String,
}

struct Server {
    client: Client,
    /// URLs that end with this process.
    open: BTreeSet<String>,
}

/// Answers until `shutdown` or the end of input.
pub(crate) async fn run(
    client: Client,
    mut input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut server = Server { client, open: BTreeSet::new() };
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line).await? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let (mut answer, last) = server.answer(&line).await.pair();
        answer.push('\n');
        output.write_all(answer.as_bytes()).await?;
        output.flush().await?;
        if last {
            break;
        }
    }
    server.close_all().await;
    Ok(())
}

struct Answer {
    id: Value,
    result: Result<Value, Fault>,
    last: bool,
}

impl Answer {
    fn pair(self) -> (String, bool) {
        let body = match self.result {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": self.id, "result": result }),
            Err(Fault { code, message }) => {
                let error = json!({ "code": code, "message": message });
                json!({ "jsonrpc": "2.0", "id": self.id, "error": error })
            }
        };
        (body.to_string(), self.last)
    }
}

impl Server {
    async fn answer(&mut self, line: &str) -> Answer {
        let refused = |code, e: serde_json::Error| {
            let fault = Fault { code, message: format!("not a request: {e}") };
            Answer { id: Value::Null, result: Err(fault), last: false }
        };
        let json: Value = match serde_json::from_str(line) {
            Ok(json) => json,
            Err(error) => return refused(PARSE_ERROR, error),
        };
        let Request { id, method, params } = match serde_json::from_value(json) {
            Ok(request) => request,
            Err(error) => return refused(INVALID_REQUEST, error),
        };
        let result = match method.as_str() {
            "version" => Ok(json!(VERSION)),
            "publish" => self.publish(params).await,
            "close" => self.close(params).await,
            "receive" => self.receive(params).await,
            "shutdown" => {
                self.close_all().await;
                Ok(json!("ok"))
            }
            other => Err(Fault {
                code: UNKNOWN_METHOD,
                message: format!("there is no method `{other}`"),
            }),
        };
        Answer { id, result, last: method == "shutdown" }
    }

    /// `{files: [path]}` gives `[{file, url}]`: all or none.
    async fn publish(&mut self, params: Value) -> Result<Value, Fault> {
        #[derive(Deserialize)]
        struct Params {
            files: Vec<PathBuf>,
        }
        let Params { files } = read(params)?;
        let mut links = Vec::with_capacity(files.len());
        for file in files {
            let url = self.client.publish(&absolute(&file)?).await.map_err(failed)?;
            self.open.insert(url.clone());
            links.push(json!({ "file": file, "url": url }));
        }
        Ok(links.into())
    }

    /// `{urls: [url]}` gives a status for each.
    async fn close(&mut self, params: Value) -> Result<Value, Fault> {
        #[derive(Deserialize)]
        struct Params {
            urls: Vec<String>,
        }
        let Params { urls } = read(params)?;
        let mut statuses = Vec::with_capacity(urls.len());
        for url in urls {
            let known = self.open.remove(&url);
            let closed = known && self.client.unpublish(&url).await.is_ok();
            statuses.push(if closed { "ok" } else { "error" });
        }
        Ok(statuses.into())
    }

    /// `{output_file: path}` gives `{file, url}`: what is sent to the URL arrives in the file.
    async fn receive(&mut self, params: Value) -> Result<Value, Fault> {
        #[derive(Deserialize)]
        struct Params {
            output_file: PathBuf,
        }
        let Params { output_file: file } = read(params)?;
        let url = self.client.receive(&absolute(&file)?).await.map_err(failed)?;
        self.open.insert(url.clone());
        Ok(json!({ "file": file, "url": url }))
    }

    async fn close_all(&mut self) {
        for url in std::mem::take(&mut self.open) {
            // The daemon may be gone already, and what it published with it.
            let _ = self.client.unpublish(&url).await;
        }
    }
}

/// The daemon has another working directory.
fn absolute(path: &std::path::Path) -> Result<PathBuf, Fault> {
    std::path::absolute(path).map_err(|e| Fault { code: INVALID_PARAMS, message: e.to_string() })
}

fn read<T: for<'de> Deserialize<'de>>(params: Value) -> Result<T, Fault> {
    serde_json::from_value(params)
        .map_err(|e| Fault { code: INVALID_PARAMS, message: format!("the parameters: {e}") })
}

fn failed(error: gvpn_sdk::Error) -> Fault {
    Fault { code: FAILED, message: error.to_string() }
}
