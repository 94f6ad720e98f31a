//! The guest agent, as the host sees it. It is as trustworthy as the payload: lengths, windows and waits
//! are the host's, and an agent that does not keep to them ends the activity.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gvpn_guest::{
    Done, FromGuest, MAGIC, MAX_DATA, MAX_TEXT, Order, Program, Request, Stream, VERSION, WINDOW,
    decode, encode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, pipe},
    },
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

use crate::{Exit, Output, RuntimeError};

/// What may come before the agent's greeting.
const NOISE: usize = 64 << 10;
/// Frames that may wait for a guest that does not read.
const QUEUE: usize = 64;
/// Most bytes that a line may hold.
const MAX_ROOM: usize = 16 << 20;
/// Frames that belong to nothing, in all.
const STRAYS: u32 = 10_000;
/// How long a guest may take to obey.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine whose agent has greeted.
#[derive(Debug)]
pub(super) struct Guest {
    requests: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    end: watch::Receiver<Option<String>>,
    /// Its network cards.
    pub(super) interfaces: Vec<String>,
}

/// What is expected of the guest.
#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    answers: HashMap<u64, oneshot::Sender<Result<Done, String>>>,
    streams: HashMap<(u64, bool), Flow>,
    strays: u32,
    closed: bool,
}

/// A stream on its way here.
#[derive(Debug)]
struct Flow {
    to: mpsc::UnboundedSender<Vec<u8>>,
    /// Bytes that may come.
    allowed: u64,
}

impl Guest {
    /// Waits for an agent's greeting on the line, which holds so many bytes that the agent has not taken.
    pub(super) async fn greet(line: UnixStream, room: usize) -> Result<Self, String> {
        let (mut reader, writer) = line.into_split();
        let mut unread = vec![];
        find_magic(&mut reader, &mut unread).await?;
        let interfaces = match receive(&mut reader, &mut unread).await {
            Ok(Some((FromGuest::Hello { version: VERSION, interfaces }, _))) => interfaces,
            Ok(Some((FromGuest::Failed { reason }, _))) => return Err(reason),
            Ok(_) => return Err("its agent did not greet".to_owned()),
            Err(e) => return Err(format!("its agent sent nonsense: {e}")),
        };
        let (requests, outgoing) = mpsc::channel(QUEUE);
        let waiting = Arc::<Mutex<Waiting>>::default();
        let (ending, end) = watch::channel(None);
        let room = Arc::new(Semaphore::new(room));
        tokio::spawn(write(writer, outgoing, room.clone()));
        let kept = waiting.clone();
        tokio::spawn(async move {
            let reason = read(reader, unread, &kept, &room).await;
            {
                let mut waiting = lock(&kept);
                waiting.closed = true;
                waiting.answers.clear();
                waiting.streams.clear();
            }
            let _ = ending.send(Some(reason));
        });
        Ok(Self { requests, waiting, end, interfaces })
    }

    /// Gives an order and waits for its answer.
    pub(super) async fn obey(&self, what: &str, order: Order) -> Result<Done, RuntimeError> {
        let (id, answered) = self.expect(&[]);
        let asked = async {
            self.post(id, order, &[]).await;
            answered.await
        };
        let failed =
            |why: String| RuntimeError::Failed(format!("the machine cannot {what}: {why}"));
        match timeout(PATIENCE, asked).await {
            Ok(Ok(outcome)) => outcome.map_err(failed),
            Ok(Err(_)) => Err(failed(self.ended().await)),
            Err(_) => {
                self.forget(id);
                Err(failed(format!("it does not answer within {} s", PATIENCE.as_secs())))
            }
        }
    }

    /// Runs a program.
    pub(super) async fn run(&self, program: Program, output: Output) -> Result<Exit, RuntimeError> {
        let name = program.path.clone();
        let open = |fd: OwnedFd| pipe::Sender::from_owned_fd(fd);
        let pipes = open(output.stdout).and_then(|stdout| Ok((stdout, open(output.stderr)?)));
        let (stdout, stderr) = pipes.map_err(RuntimeError::io("open a pipe"))?;
        let (to_stdout, from_stdout) = mpsc::unbounded_channel();
        let (to_stderr, from_stderr) = mpsc::unbounded_channel();
        let streams = [(Stream::Stdout, to_stdout), (Stream::Stderr, to_stderr)];
        let (id, answered) = self.expect(&streams);
        drop(streams);
        self.post(id, Order::Run(program), &[]).await;
        let (outcome, _, _) = tokio::join!(
            answered,
            self.pump(id, Stream::Stdout, from_stdout, stdout),
            self.pump(id, Stream::Stderr, from_stderr, stderr),
        );
        match outcome {
            Ok(Ok(Done::Exited(gvpn_guest::Exit::Code(code)))) => Ok(Exit::Code(code)),
            Ok(Ok(Done::Exited(gvpn_guest::Exit::Signal(signal)))) => Ok(Exit::Signal(signal)),
            Ok(Ok(Done::Nothing)) => {
                Err(RuntimeError::Failed("the machine gave a wrong answer".into()))
            }
            Ok(Err(reason)) => Err(RuntimeError::Program { program: name, reason }),
            Err(_) => Err(RuntimeError::NotRunning(format!(": {}", self.ended().await))),
        }
    }

    /// Reads a file into `to`, at most so many bytes.
    pub(super) async fn read(
        &self,
        path: &str,
        to: std::fs::File,
        most: u64,
    ) -> Result<(), RuntimeError> {
        let failed = |why: String| RuntimeError::Failed(format!("cannot read {path}: {why}"));
        let (sender, chunks) = mpsc::unbounded_channel();
        let (id, answered) = self.expect(&[(Stream::Stdout, sender)]);
        self.post(id, Order::Read { path: path.to_owned() }, &[]).await;
        let to = Bounded { file: tokio::fs::File::from_std(to), left: most };
        let (outcome, copied) = tokio::join!(answered, self.pump(id, Stream::Stdout, chunks, to));
        match outcome {
            Ok(Ok(_)) => copied.map_err(|e| failed(e.to_string())),
            Ok(Err(reason)) => Err(failed(reason)),
            Err(_) => Err(failed(self.ended().await)),
        }
    }

    /// Writes a file.
    pub(super) async fn write(&self, path: &str, from: std::fs::File) -> Result<(), RuntimeError> {
        let failed = |why: String| RuntimeError::Failed(format!("cannot write {path}: {why}"));
        let (id, mut answered) = self.expect(&[]);
        self.post(id, Order::Write { path: path.to_owned() }, &[]).await;
        let mut from = tokio::fs::File::from_std(from);
        let mut buffer = vec![0; MAX_DATA / 2];
        let send = async {
            loop {
                let n = from.read(&mut buffer).await?;
                self.post(id, Order::Chunk, &buffer[..n]).await;
                if n == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        let early = tokio::select! {
            biased;
            answer = &mut answered => Some(answer),
            sent = send => {
                sent.map_err(|e| failed(e.to_string()))?;
                None
            }
        };
        let answer = match early {
            Some(answer) => answer,
            None => timeout(PATIENCE, answered).await.map_err(|_| failed("no answer".into()))?,
        };
        match answer {
            Ok(outcome) => outcome.map(drop).map_err(failed),
            Err(_) => Err(failed(self.ended().await)),
        }
    }

    /// Returns when the guest has ended or stopped to make sense; says why.
    pub(super) async fn ended(&self) -> String {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "it ended".to_owned(),
        }
    }

    /// Returns when the guest takes no orders any more: it has not answered for so long.
    pub(super) async fn silent(&self, patience: Duration) {
        loop {
            tokio::time::sleep(patience / 4).await;
            let (id, answered) = self.expect(&[]);
            let asked = async {
                self.post(id, Order::Answer, &[]).await;
                answered.await
            };
            if timeout(patience, asked).await.is_err() {
                return;
            }
            if self.is_over() {
                std::future::pending().await
            }
        }
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Asks the machine to end.
    pub(super) async fn stop(&self) {
        let (id, _) = self.expect(&[]);
        let _ = timeout(Duration::from_secs(1), self.post(id, Order::Stop, &[])).await;
    }

    fn expect(
        &self,
        streams: &[(Stream, mpsc::UnboundedSender<Vec<u8>>)],
    ) -> (u64, oneshot::Receiver<Result<Done, String>>) {
        let (answer, answered) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        waiting.last += 1;
        let id = waiting.last;
        if !waiting.closed {
            waiting.answers.insert(id, answer);
            for (stream, to) in streams {
                let flow = Flow { to: to.clone(), allowed: WINDOW.into() };
                waiting.streams.insert((id, *stream == Stream::Stderr), flow);
            }
        }
        (id, answered)
    }

    fn forget(&self, id: u64) {
        let mut waiting = lock(&self.waiting);
        waiting.answers.remove(&id);
        waiting.streams.retain(|(of, _), _| *of != id);
    }

    /// A guest that is gone is noticed by its reader.
    async fn post(&self, id: u64, order: Order, data: &[u8]) {
        if let Ok(bytes) = encode(&Request { id, order }, data) {
            let _ = self.requests.send(bytes).await;
        }
    }

    /// Passes a stream on, letting more come as it goes.
    async fn pump(
        &self,
        id: u64,
        stream: Stream,
        mut from: mpsc::UnboundedReceiver<Vec<u8>>,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut outcome = Ok(());
        while let Some(bytes) = from.recv().await {
            if outcome.is_ok() {
                outcome = to.write_all(&bytes).await;
            }
            let taken = bytes.len() as u32;
            if let Some(flow) = lock(&self.waiting).streams.get_mut(&(id, stream == Stream::Stderr))
            {
                flow.allowed += u64::from(taken);
            }
            self.post(id, Order::Credit { stream, bytes: taken }, &[]).await;
        }
        to.flush().await.and(outcome)
    }
}

async fn find_magic(reader: &mut OwnedReadHalf, unread: &mut Vec<u8>) -> Result<(), String> {
    loop {
        if let Some(at) = unread.windows(MAGIC.len()).position(|window| window == MAGIC) {
            unread.drain(..at + MAGIC.len());
            return Ok(());
        }
        if unread.len() > NOISE {
            return Err("there is noise where its agent should be".to_owned());
        }
        match reader.read_buf(unread).await {
            Ok(0) => return Err("it ended before its agent came up".to_owned()),
            Ok(_) => {}
            Err(e) => return Err(format!("the line to it broke: {e}")),
        }
    }
}

async fn receive(
    reader: &mut OwnedReadHalf,
    unread: &mut Vec<u8>,
) -> io::Result<Option<(FromGuest, Vec<u8>)>> {
    loop {
        if let Some(frame) = decode(unread)? {
            return Ok(Some(frame));
        }
        debug_assert!(unread.len() <= MAX_TEXT + MAX_DATA + 8, "decode takes whole frames");
        unread.reserve(MAX_DATA);
        if reader.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
}

async fn read(
    mut reader: OwnedReadHalf,
    mut unread: Vec<u8>,
    waiting: &Mutex<Waiting>,
    room: &Semaphore,
) -> String {
    loop {
        let taken = match receive(&mut reader, &mut unread).await {
            Ok(Some((FromGuest::Taken { bytes }, _))) => {
                // A lie about it hurts its own line only, within the bounds of a counter.
                let bytes = (bytes as usize).min(MAX_ROOM);
                if room.available_permits() <= MAX_ROOM {
                    room.add_permits(bytes);
                }
                Ok(())
            }
            Ok(Some((message, data))) => lock(waiting).take(message, data),
            Ok(None) => return "it ended".to_owned(),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return "it ended".to_owned(),
            Err(e) => Err(e.to_string()),
        };
        if let Err(reason) = taken {
            return format!("its agent sent nonsense: {reason}");
        }
    }
}

impl Waiting {
    fn take(&mut self, message: FromGuest, data: Vec<u8>) -> Result<(), String> {
        match message {
            FromGuest::Output { id, stream } => {
                let Some(flow) = self.streams.get_mut(&(id, stream == Stream::Stderr)) else {
                    return self.stray();
                };
                let left = flow.allowed.checked_sub(data.len() as u64);
                flow.allowed = left.ok_or("more output than it was allowed")?;
                // Whoever asked may have gone.
                let _ = flow.to.send(data);
                Ok(())
            }
            FromGuest::Answer { id, outcome } => {
                self.streams.retain(|(of, _), _| *of != id);
                let Some(answer) = self.answers.remove(&id) else { return self.stray() };
                let _ = answer.send(outcome);
                Ok(())
            }
            FromGuest::Taken { .. } => Ok(()),
            FromGuest::Hello { .. } => Err("a second greeting".to_owned()),
            FromGuest::Failed { reason } => Err(reason),
        }
    }

    fn stray(&mut self) -> Result<(), String> {
        self.strays += 1;
        if self.strays > STRAYS { Err("answers that nobody asked for".to_owned()) } else { Ok(()) }
    }
}

/// Writes as the agent takes: a serial line of user-mode Linux stops for good when its buffer was full.
async fn write(
    mut writer: OwnedWriteHalf,
    mut outgoing: mpsc::Receiver<Vec<u8>>,
    room: Arc<Semaphore>,
) {
    let most = (room.available_permits() / 4).max(1);
    while let Some(bytes) = outgoing.recv().await {
        for piece in bytes.chunks(most) {
            let Ok(permit) = room.acquire_many(piece.len() as u32).await else { return };
            permit.forget();
            if writer.write_all(piece).await.is_err() {
                return;
            }
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that takes so many bytes.
struct Bounded {
    file: tokio::fs::File,
    left: u64,
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        if self.left < bytes.len() as u64 {
            let text = "the file is larger than the payload's storage";
            return std::task::Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        let written = std::pin::Pin::new(&mut self.file).poll_write(context, bytes);
        if let std::task::Poll::Ready(Ok(n)) = written {
            self.left -= n as u64;
        }
        written
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.file).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.file).poll_shutdown(context)
    }
}
