"""A wire between a client and its daemon: it passes on every byte as it is, and writes down the requests
and their answers."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

# A body is kept up to here; what is longer is a file.
KEPT = 1 << 20
BLOCK = 1 << 16


@dataclass
class Message:
    """A request or an answer; times are those of its first and its last byte."""

    first: str
    headers: dict
    began: float
    ended: float = 0.0
    body: bytes = b""
    # How much of the body is to come: a number of bytes, "chunks", or "end" for whatever comes.
    rest: object = 0

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass
class Exchange:
    """A request and its answer, if one came."""

    request: Message
    answer: Message = None
    path: str = field(init=False)
    query: dict = field(init=False)
    method: str = field(init=False)

    def __post_init__(self):
        self.method, target, _ = self.request.first.split(" ", 2)
        url = urlsplit(target)
        self.path = url.path
        self.query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}

    @property
    def status(self):
        return int(self.answer.first.split(" ", 2)[1])

    @property
    def content_type(self):
        return self.answer.headers.get("content-type", "").split(";")[0]

    @property
    def waited(self):
        """Seconds from the request's end to the answer's beginning."""
        return self.answer.began - self.request.ended


class Parser:
    """Cuts a stream of bytes into messages of HTTP/1.1."""

    def __init__(self, bodiless):
        # Whether a message whose head this is has no body, whatever its headers say.
        self._bodiless = bodiless
        self._bytes, self._message, self.raw = b"", None, False
        self.done = []

    def feed(self, data, now):
        if self.raw:
            return
        self._bytes += data
        while self._step(now):
            pass

    def close(self, now):
        if self._message and self._message.rest == "end":
            self._end(now)

    def _step(self, now):
        return self._head(now) if self._message is None else self._body(now)

    def _head(self, now):
        head, end, rest = self._bytes.partition(b"\r\n\r\n")
        if not end:
            return False
        self._bytes = rest
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        message = self._message = Message(first, headers, now)
        if self._bodiless(message):
            message.rest = 0
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            message.rest = "chunks"
        elif "content-length" in headers:
            message.rest = int(headers["content-length"])
        else:
            message.rest = "end" if first.startswith("HTTP/") else 0
        return True

    def _body(self, now):
        message = self._message
        if message.rest == "chunks":
            return self._chunk(now)
        if message.rest == "end":
            taken, self._bytes = self._bytes, b""
            self._keep(taken)
            return False
        taken, self._bytes = self._bytes[: message.rest], self._bytes[message.rest :]
        message.rest -= len(taken)
        self._keep(taken)
        if message.rest:
            return False
        self._end(now)
        return True

    def _chunk(self, now):
        size, end, rest = self._bytes.partition(b"\r\n")
        if not end:
            return False
        length = int(size.split(b";")[0], 16)
        if len(rest) < length + 2:
            return False
        self._keep(rest[:length])
        self._bytes = rest[length + 2 :]
        if length == 0:
            self._end(now)
        return True

    def _keep(self, data):
        self._message.body += data[: max(0, KEPT - len(self._message.body))]

    def _end(self, now):
        message, self._message = self._message, None
        message.ended = now
        # What follows an upgrade is not HTTP.
        self.raw = message.first.split(" ")[1] == "101"
        if not message.first.startswith("HTTP/1.1 100"):
            self.done.append(message)


class Wire:
    """Listens where clients look for the daemon, and leads to where it is."""

    def __init__(self, port, to):
        self.exchanges = []
        self._port, self._to = port, to
        self._loop = asyncio.new_event_loop()
        self._server, self._tasks = None, set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.open()

    def open(self):
        """Lets clients in."""
        self._call(self._open())

    def close(self):
        """Refuses clients, as a daemon that does not run does."""
        self._call(self._close())

    def take(self):
        """What was exchanged since this was asked for last."""
        taken, self.exchanges = self.exchanges, []
        return taken

    def stop(self):
        """Ends what is still connected."""
        self.close()
        self._call(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _open(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _close(self):
        if self._server:
            self._server.close()
        self._server = None

    async def _cut(self):
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        # Nothing else holds a task whose client is gone.
        task = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        pending = []

        def bodiless(answer):
            status = answer.first.split(" ", 2)[1]
            head = bool(pending) and pending[0].method == "HEAD"
            return head or status.startswith("1") or status in ("204", "304")

        asked, answered = Parser(lambda _: False), Parser(bodiless)

        def note(data, parser):
            parser.feed(data, time.monotonic())
            pair()

        def pair():
            for message in asked.done:
                pending.append(Exchange(message))
                self.exchanges.append(pending[-1])
            asked.done.clear()
            for message in answered.done:
                pending.pop(0).answer = message
            answered.done.clear()
            asked.raw = asked.raw or answered.raw

        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return

        async def carry(reader, writer, parser):
            try:
                while data := await reader.read(BLOCK):
                    note(data, parser)
                    writer.write(data)
                    await writer.drain()
                writer.write_eof()
            except OSError:  # one end is gone: so is the other
                back.transport.abort()
                writer.transport.abort()

        await asyncio.gather(carry(reader, back, asked), carry(there, writer, answered))
        answered.close(time.monotonic())
        pair()
        back.close()
        writer.close()
