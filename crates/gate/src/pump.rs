//! Both directions under [`bridge_tcp`](crate::bridge_tcp), in one task.

use std::{
    collections::VecDeque,
    error::Error,
    io::{self, IoSlice},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use axum::extract::ws::{CloseFrame, Message, close_code};
use bytes::{Buf, Bytes, BytesMut};
use futures::{
    FutureExt, Sink, SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{BridgeOptions, ClientSocket, Ended};

/// Reads from the payload start this large and double as long as they come back full.
const READ_MIN: usize = 16 << 10;
const READ_MAX: usize = 256 << 10;
/// Bytes from the client that may wait for the payload.
const QUEUE_MAX: usize = 256 << 10;
const SLICES: usize = 64;

/// What both directions and the watchdog know of each other.
struct Shared {
    options: BridgeOptions,
    half_close: bool,
    /// The client's side is over: it closed, or its connection broke.
    client_over: CancellationToken,
    /// The client has ended its direction in the half-close protocol.
    client_ended: CancellationToken,
    notes: Mutex<Notes>,
}

#[derive(Clone, Copy)]
struct Notes {
    ended: Ended,
    /// When the client last gave a sign of life.
    heard: Instant,
    /// When bytes last reached the payload.
    progress: Instant,
    /// The client takes nothing now.
    sending: bool,
    /// The payload takes nothing now.
    writing: bool,
}

impl Shared {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client_is_over(&self, how: Ended) {
        if !self.client_over.is_cancelled() {
            self.end_as(how);
            self.notes().progress = Instant::now();
            self.client_over.cancel();
        }
    }

    fn end_as(&self, how: Ended) {
        let mut notes = self.notes();
        if notes.ended == Ended::Closed {
            notes.ended = how;
        }
    }

    /// Waits for the client to take something. That it did after it could not is a sign of life.
    async fn patiently<F: Future>(&self, sent: F) -> F::Output {
        let mut sent = pin!(sent);
        if let Poll::Ready(done) = futures::poll!(&mut sent) {
            return done;
        }
        self.notes().sending = true;
        let done = sent.await;
        let mut notes = self.notes();
        notes.sending = false;
        notes.heard = Instant::now();
        done
    }

    /// Returns when waiting any longer is in vain.
    async fn watch(&self, client: &ClientSocket) {
        let options = &self.options;
        let step = options.linger.min(options.silence_limit) / 4;
        let mut ticks = interval(step.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let kernel = client.silent_for();
            let mut notes = self.notes();
            if self.client_over.is_cancelled() {
                if notes.progress.elapsed() > options.linger {
                    return;
                }
                continue;
            }
            if notes.writing {
                // Nothing is read from the client now: its silence says nothing.
                notes.heard = Instant::now();
            }
            let limit = match kernel {
                _ if notes.sending => options.stall_limit,
                Some(_) => options.absence_limit,
                None => options.silence_limit,
            };
            let vanished = kernel.is_some_and(|silence| silence > options.silence_limit);
            if vanished || notes.heard.elapsed() > limit {
                notes.ended = Ended::ClientSilent;
                return;
            }
        }
    }
}

/// Runs the bridge to its end.
pub(crate) async fn pump<S, T, E>(
    socket: S,
    tcp: T,
    half_close: bool,
    client: &ClientSocket,
    options: BridgeOptions,
) -> Ended
where
    S: Stream<Item = Result<Message, E>> + Sink<Message, Error = E> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
    E: Error + 'static,
{
    let now = Instant::now();
    let shared = Shared {
        options,
        half_close,
        client_over: CancellationToken::new(),
        client_ended: CancellationToken::new(),
        notes: Mutex::new(Notes {
            ended: Ended::Closed,
            heard: now,
            progress: now,
            sending: false,
            writing: false,
        }),
    };
    let (sink, source) = socket.split();
    let (reader, writer) = tokio::io::split(tcp);
    let mut down = Down {
        sink,
        reader,
        shared: &shared,
        buffer: BytesMut::new(),
        size: READ_MIN,
        pinged: now,
    };
    let mut up =
        Up { source, writer, shared: &shared, queue: VecDeque::new(), queued: 0, broken: false };
    tokio::select! {
        _ = async { tokio::join!(down.run(), up.run()) } => {}
        () = shared.watch(client) => {}
    }
    let notes = *shared.notes();
    notes.ended
}

/// From the payload to the client.
struct Down<'a, S, T> {
    sink: SplitSink<S, Message>,
    reader: ReadHalf<T>,
    shared: &'a Shared,
    buffer: BytesMut,
    size: usize,
    pinged: Instant,
}

impl<S, T, E> Down<'_, S, T>
where
    S: Sink<Message, Error = E> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    async fn run(&mut self) {
        let shared = self.shared;
        let told = tokio::select! {
            told = self.carry() => told,
            () = shared.client_over.cancelled() => Ok(()),
        };
        if told.is_err() {
            shared.client_is_over(Ended::ClientGone);
        }
        if shared.client_over.is_cancelled() {
            self.drain().await;
        }
    }

    /// Sends the payload's bytes, then its end.
    async fn carry(&mut self) -> Result<(), E> {
        let error = loop {
            self.ping_if_due().await?;
            let read = match self.read().now_or_never() {
                Some(read) => read,
                None => {
                    self.flush().await?;
                    let next_ping = self.pinged + self.shared.options.ping_every;
                    tokio::select! {
                        read = self.read() => read,
                        () = sleep_until(next_ping) => continue,
                    }
                }
            };
            match read {
                Ok(data) if data.is_empty() => break None,
                Ok(data) => self.send(Message::Binary(data)).await?,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = error {
            self.shared.end_as(Ended::PayloadReset);
            let reason = format!("the payload's connection broke: {error}");
            return self.close(close_code::ERROR, &reason).await;
        }
        if self.shared.half_close {
            self.send(Message::Text("".into())).await?;
            self.flush().await?;
            while !self.shared.client_ended.is_cancelled() {
                self.ping_if_due().await?;
                let next_ping = self.pinged + self.shared.options.ping_every;
                let _ = timeout_at(next_ping, self.shared.client_ended.cancelled()).await;
            }
            self.close(close_code::NORMAL, "").await?;
            // Both directions are done: the client owes no more than its Close.
            self.shared.client_is_over(Ended::Closed);
            return Ok(());
        }
        self.close(close_code::NORMAL, "").await
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        self.buffer.reserve(self.size);
        let n = self.reader.read_buf(&mut self.buffer).await?;
        if n >= self.size {
            self.size = (self.size * 2).min(READ_MAX);
        }
        Ok(self.buffer.split().freeze())
    }

    async fn ping_if_due(&mut self) -> Result<(), E> {
        if self.pinged.elapsed() < self.shared.options.ping_every {
            return Ok(());
        }
        self.pinged = Instant::now();
        self.send(Message::Ping(Bytes::new())).await?;
        self.flush().await
    }

    async fn send(&mut self, message: Message) -> Result<(), E> {
        self.shared.patiently(self.sink.feed(message)).await
    }

    async fn flush(&mut self) -> Result<(), E> {
        self.shared.patiently(self.sink.flush()).await
    }

    async fn close(&mut self, code: u16, reason: &str) -> Result<(), E> {
        let frame = CloseFrame { code, reason: reason.into() };
        self.send(Message::Close(Some(frame))).await?;
        self.flush().await
    }

    /// Reads what still comes and throws it away: closing with unread data would be a reset, and
    /// would cost the payload what the client sent last.
    async fn drain(&mut self) {
        let mut scrap = vec![0; READ_MIN];
        while matches!(self.reader.read(&mut scrap).await, Ok(1..)) {}
    }
}

/// From the client to the payload.
struct Up<'a, S, T> {
    source: SplitStream<S>,
    writer: WriteHalf<T>,
    shared: &'a Shared,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// The payload takes no more: what comes is thrown away.
    broken: bool,
}

impl<S, T, E> Up<'_, S, T>
where
    S: Stream<Item = Result<Message, E>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
    E: Error + 'static,
{
    async fn run(&mut self) {
        let over = self.carry().await;
        // The client's end first: the other direction must not wait for a payload that is slow.
        if over != Ended::Closed {
            self.shared.client_is_over(over);
        }
        self.write().await;
        // The payload may have reset: then nobody is left to tell.
        let _ = self.writer.shutdown().await;
        self.shared.client_is_over(over);
        // Lets the answer to the client's Close out.
        while let Some(Ok(_)) = self.source.next().await {}
    }

    /// Writes the client's bytes to the payload until the client's side is over.
    async fn carry(&mut self) -> Ended {
        loop {
            let first = self.source.next().await;
            if let Some(over) = self.take(first).await {
                return over;
            }
            while self.queued < QUEUE_MAX {
                let Some(more) = self.source.next().now_or_never() else { break };
                if let Some(over) = self.take(more).await {
                    return over;
                }
            }
            self.write().await;
        }
    }

    /// Takes one message in; tells how the client's side ended, if it did.
    async fn take(&mut self, message: Option<Result<Message, E>>) -> Option<Ended> {
        self.shared.notes().heard = Instant::now();
        let data = match message {
            None => return Some(Ended::ClientGone),
            Some(Err(error)) => return Some(fault(&error)),
            Some(Ok(Message::Close(_))) => return Some(Ended::Closed),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return None,
            Some(Ok(Message::Text(text))) if text.is_empty() && self.shared.half_close => {
                self.write().await;
                let _ = self.writer.shutdown().await;
                self.broken = true;
                self.shared.client_ended.cancel();
                return None;
            }
            Some(Ok(Message::Text(text))) => Bytes::from(text),
            Some(Ok(Message::Binary(data))) => data,
        };
        if !self.broken && !data.is_empty() {
            self.queued += data.len();
            self.queue.push_back(data);
        }
        None
    }

    /// Writes what waits.
    async fn write(&mut self) {
        self.shared.notes().writing = true;
        while let Some(first) = self.queue.front() {
            let written = if self.queue.len() == 1 {
                self.writer.write(first).await
            } else {
                let slices: Vec<_> =
                    self.queue.iter().take(SLICES).map(|b| IoSlice::new(b)).collect();
                self.writer.write_vectored(&slices).await
            };
            match written {
                Ok(n @ 1..) => {
                    self.shared.notes().progress = Instant::now();
                    self.written(n);
                }
                Ok(0) | Err(_) => {
                    self.broken = true;
                    self.queue.clear();
                    self.queued = 0;
                }
            }
        }
        self.shared.notes().writing = false;
    }

    fn written(&mut self, mut n: usize) {
        self.queued -= n;
        while let Some(first) = self.queue.front_mut() {
            if n < first.len() {
                first.advance(n);
                return;
            }
            n -= first.len();
            self.queue.pop_front();
        }
    }
}

/// Tells a client that broke the rules from one whose connection broke.
fn fault(error: &(dyn Error + 'static)) -> Ended {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return Ended::ClientGone;
        }
        let text = error.to_string();
        if text.contains("without closing handshake") || text.contains("closed") {
            return Ended::ClientGone;
        }
        cause = error.source();
    }
    Ended::ClientFault
}
