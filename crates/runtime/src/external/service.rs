//! A runtime in service mode: requests, answers and events over its standard input and output.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gvpn_vnic::Child;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    message::{Answer, Order, ProcessStatus, Request, Response},
    program::{Complaints, Running},
};
use crate::RuntimeError;

/// Largest message of a runtime.
const MAX_MESSAGE: usize = 16 << 20;
/// Statuses of a program that may wait for their reader; then the runtime waits.
const STATUSES: usize = 256;
/// Statuses that may come before the answer that tells whose they are.
const EARLY: usize = 1024;

/// A started runtime.
#[derive(Debug)]
pub(super) struct Service {
    name: String,
    process: tokio::sync::Mutex<Child>,
    requests: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    /// Why it ended, once it has.
    end: watch::Receiver<Option<String>>,
    complaints: Complaints,
}

/// What is expected from the runtime.
#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    answers: HashMap<u64, oneshot::Sender<Reply>>,
    programs: HashMap<u64, mpsc::Sender<ProcessStatus>>,
    early: VecDeque<ProcessStatus>,
    counters: HashMap<String, f64>,
    closed: bool,
}

/// An answer, and for a started program what it will do.
type Reply = (Answer, Option<mpsc::Receiver<ProcessStatus>>);

impl Service {
    pub(super) fn new(name: String, running: Running) -> io::Result<Self> {
        let Running { process, socket, complaints } = running;
        let (reader, writer) = open(socket)?.into_split();
        let (requests, outgoing) = mpsc::unbounded_channel();
        let waiting = Arc::<Mutex<Waiting>>::default();
        let (ending, end) = watch::channel(None);
        tokio::spawn(write(writer, outgoing));
        let reading = read(BufReader::new(reader), waiting.clone());
        let kept = waiting.clone();
        tokio::spawn(async move {
            let reason = reading.await;
            {
                let mut waiting = lock(&kept);
                waiting.closed = true;
                waiting.answers.clear();
                waiting.programs.clear();
            }
            let _ = ending.send(Some(reason));
        });
        let process = tokio::sync::Mutex::new(process);
        Ok(Self { name, process, requests, waiting, end, complaints })
    }

    /// Gives an order and waits for its answer.
    pub(super) async fn ask(
        &self,
        what: &str,
        order: Order,
        patience: Duration,
    ) -> Result<Reply, RuntimeError> {
        let failed =
            |why: String| RuntimeError::Failed(format!("the runtime {}: {what}: {why}", self.name));
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut waiting = lock(&self.waiting);
            waiting.last += 1;
            let id = waiting.last;
            if !waiting.closed {
                waiting.answers.insert(id, answer);
            }
            id
        };
        let request = Request { id, order: Some(order) };
        let _ = self.requests.send(request.encode_length_delimited_to_vec());
        match timeout(patience, answered).await {
            Ok(Ok((Answer::Error(refusal), _))) => Err(failed(refusal.message)),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(failed(self.ended().await)),
            Err(_) => {
                lock(&self.waiting).answers.remove(&id);
                Err(failed(format!("no answer within {} s", patience.as_secs())))
            }
        }
    }

    /// Returns when the runtime has ended or stopped to make sense; says why.
    pub(super) async fn ended(&self) -> String {
        let mut end = self.end.clone();
        let reason = match end.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "it ended".to_owned(),
        };
        format!("{reason}{}", self.complaints.tail().await)
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// A counter that the runtime has reported.
    pub(super) fn counter(&self, name: &str) -> Option<f64> {
        lock(&self.waiting).counters.get(name).copied()
    }

    /// Asks it to end, waits, and ends it.
    pub(super) async fn stop(&self, patience: Duration) {
        let mut process = self.process.lock().await;
        let orderly = async {
            let _ = self.ask("shutdown", Order::Shutdown(Default::default()), patience).await;
            process.wait().await
        };
        if timeout(patience, orderly).await.is_err() {
            process.signal(nix::sys::signal::Signal::SIGKILL);
            let _ = process.wait().await;
        }
        let mut end = self.end.clone();
        let _ = timeout(patience, end.wait_for(Option::is_some)).await;
    }
}

fn open(socket: OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

async fn write(mut writer: OwnedWriteHalf, mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = outgoing.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Reads until the end; why that is.
async fn read(mut reader: BufReader<OwnedReadHalf>, waiting: Arc<Mutex<Waiting>>) -> String {
    loop {
        match receive(&mut reader).await {
            Ok(Some(response)) => deliver(response, &waiting).await,
            Ok(None) => return "it ended".to_owned(),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return "it ended in the middle of a message".to_owned();
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return "it ended".to_owned(),
            Err(e) => return format!("what it says is not the runtime protocol: {e}"),
        }
    }
}

async fn receive(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Response>> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut length = 0usize;
    for place in 0.. {
        let byte = match reader.read_u8().await {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && place == 0 => return Ok(None),
            byte => byte?,
        };
        length |= usize::from(byte & 0x7f) << (7 * place);
        if length > MAX_MESSAGE || place == 3 && byte & 0x80 != 0 {
            return Err(invalid(format!("a message of more than {MAX_MESSAGE} bytes")));
        }
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![];
    // Grows as bytes come, not as a length promises.
    (&mut *reader).take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Response::decode(&body[..]).map(Some).map_err(|e| invalid(e.to_string()))
}

async fn deliver(response: Response, waiting: &Mutex<Waiting>) {
    match response.answer {
        Some(Answer::Process(status)) => report(status, waiting).await,
        Some(Answer::Runtime(status)) => {
            if let Some(counter) = status.counter {
                let counters = &mut lock(waiting).counters;
                if counters.len() < EARLY || counters.contains_key(&counter.name) {
                    counters.insert(counter.name, counter.value);
                }
            }
        }
        Some(answer) => {
            let mut waiting = lock(waiting);
            let Some(asker) = waiting.answers.remove(&response.id) else { return };
            let program = match &answer {
                Answer::Run(started) => Some(waiting.follow(started.pid)),
                _ => None,
            };
            let _ = asker.send((answer, program));
        }
        None => {}
    }
}

async fn report(status: ProcessStatus, waiting: &Mutex<Waiting>) {
    let program = {
        let mut waiting = lock(waiting);
        let program = match status.running {
            true => waiting.programs.get(&status.pid).cloned(),
            false => waiting.programs.remove(&status.pid),
        };
        if program.is_none() && !waiting.answers.is_empty() && waiting.early.len() < EARLY {
            waiting.early.push_back(status);
            return;
        }
        program
    };
    if let Some(program) = program {
        let _ = program.send(status).await;
    }
}

impl Waiting {
    /// Follows a program that has just been started; what came too early is its beginning.
    fn follow(&mut self, pid: u64) -> mpsc::Receiver<ProcessStatus> {
        let (early, others): (VecDeque<_>, _) =
            std::mem::take(&mut self.early).into_iter().partition(|status| status.pid == pid);
        self.early = others;
        let (sender, receiver) = mpsc::channel(STATUSES.max(early.len()));
        let is_over = early.iter().any(|status| !status.running);
        for status in early {
            let _ = sender.try_send(status);
        }
        if !is_over {
            self.programs.insert(pid, sender);
        }
        receiver
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
