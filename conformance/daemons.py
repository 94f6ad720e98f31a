"""A relay, a requestor and providers, each a process with a data directory of its own."""

import json
import os
import random
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from wire import Wire

PATIENCE = 60


class Daemon:
    def __init__(self, gvpn: Path, directory: Path, name: str, *options: str):
        self.name, self.directory = name, directory / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / f"{name}.log"
        self._command = [str(gvpn), "--data-dir", str(self.directory), *options]
        self.start()

    def start(self):
        (self.directory / "api.url").unlink(missing_ok=True)
        with open(self._log, "a") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, "NO_COLOR": "1", "GVPN_LOG": os.environ.get("GVPN_LOG", "info,gvpn_node=debug")},
            )

    def ready(self):
        """Waits for the API; its URL and key."""
        deadline = time.monotonic() + PATIENCE
        url = self.directory / "api.url"
        while not url.exists():
            if not self.runs() or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self.last_words()}")
            time.sleep(0.05)
        self.url = url.read_text().strip()
        self.key = (self.directory / "appkey").read_text().strip()
        self.node_id = self.ask("GET", "/me")["identity"]
        return self

    def dropped(self):
        """Packets that were dropped, by reason."""
        request = urllib.request.Request(self.url + "/metrics", headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            lines = response.read().decode().splitlines()
        found = [line for line in lines if line.startswith("gvpn_dropped_packets_total{") and not line.endswith(" 0")]
        return [line.removeprefix('gvpn_dropped_packets_total{reason="').replace('"}', "") for line in found]

    def ask(self, method: str, path: str, body=None):
        request = urllib.request.Request(
            self.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return json.loads(response.read() or "null")
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()}") from None

    def last_words(self, lines=25):
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def runs(self):
        return self.process.poll() is None

    def kill(self):
        """As if the power went: no good-bye."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.runs():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise RuntimeError(f"{self.name} did not stop")


class World:
    """Everything that the programs talk to. `runtimes` is what each provider offers, if not what it
    offers by default."""

    def __init__(self, gvpn: Path, directory: Path, providers: int, runtimes=None):
        self.directory, self.daemons = directory, []
        tun = directory / "tun"
        os.mknod(tun, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
        os.chmod(tun, 0o666)
        relay = f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
        self.relay = self._start(
            gvpn, "relay", "relay", "--listen", relay, "--stream", "none", "--metrics", "none", "--workers", "1"
        )
        common = ["--listen", "127.0.0.1:0", "--relay", relay, "--tun", str(tun), "--workers", "1"]
        # A client that lives on after a restart finds the requestor where it was.
        port = free_port()
        api = f"127.0.0.1:{port}"
        self.requestor = self._start(gvpn, "requestor", "daemon", "--role", "requestor", "--api", api, *common)
        common += ["--role", "provider", "--api", "127.0.0.1:0"]
        for i in range(providers if runtimes else 0):
            home = directory / f"provider{i}"
            home.mkdir()
            (home / "config.toml").write_text(f"[provider]\nruntimes = {json.dumps(runtimes)}\n")
        self.providers = [
            self._start(gvpn, f"provider{i}", "daemon", "--node-name", f"provider-{i}", *common)
            for i in range(providers)
        ]
        for daemon in [self.requestor, *self.providers]:
            daemon.ready()
        # Clients reach the requestor by a wire that writes down what they say.
        through = free_port()
        self.wire = Wire(through, port)
        self.url = f"http://127.0.0.1:{through}"

    def _start(self, gvpn, name, *options):
        daemon = Daemon(gvpn, self.directory, name, *options)
        self.daemons.append(daemon)
        return daemon

    def misfortune(self, words):
        """What a program asks for, such as `restart requestor`."""
        match words:
            case ["restart", "requestor"]:
                self.wire.close()
                self.requestor.stop()
                self.requestor.start()
                self.requestor.ready()
                self.wire.open()
            case ["kill", node]:
                next(p for p in self.providers if p.node_id == node).kill()
            case ["start", "providers"]:
                self.start_providers()
            case _:
                raise ValueError(f"unknown: {words}")

    def offers(self, count):
        """Waits until the requestor has heard of so many offers."""
        scan = self.requestor.ask("POST", "/market-api/v1/scan", {"type": "offer"})
        seen = set()
        deadline = time.monotonic() + PATIENCE
        while len(seen) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(seen)} offers, not {count}, are heard of")
            found = self.requestor.ask("GET", f"/market-api/v1/scan/{scan}/events?timeout=5")
            seen |= {offer["offerId"] for offer in found}
        self.requestor.ask("DELETE", f"/market-api/v1/scan/{scan}")

    def start_providers(self):
        """Starts those that were killed."""
        dead = [p for p in self.providers if not p.runs()]
        for provider in dead:
            provider.start()
        for provider in dead:
            provider.ready()

    def leftovers(self):
        """What the providers still run, and documents that are not settled."""
        found = []
        for provider in self.providers:
            running = [a for a in provider.ask("GET", "/gvpn/v1/activities?role=provider") if state(a) != "Terminated"]
            found += [f"{provider.name} runs activity {a['id']}" for a in running]
        found += [f"network {n['id']}" for n in self.requestor.ask("GET", "/net-api/v1/net")]
        found += [f"demand {d['demandId']}" for d in self.requestor.ask("GET", "/market-api/v1/demands")]
        found += [f"allocation {a['allocationId']}" for a in self.requestor.ask("GET", "/payment-api/v1/allocations")]
        invoices = self.requestor.ask("GET", "/payment-api/v1/invoices")
        found += [f"invoice {i['invoiceId']} is {i['status']}" for i in invoices if i["status"] != "SETTLED"]
        return found

    def last_words(self):
        """The packets that were dropped, and the ends of the daemons' logs."""
        words = [f"{d.name} dropped: {', '.join(d.dropped())}" for d in [self.requestor, *self.providers] if d.runs()]
        return words + [f"the log of {d.name} ends with:\n{d.last_words()}" for d in self.daemons]

    def stop(self):
        self.wire.stop()
        for daemon in reversed(self.daemons):
            daemon.stop()


def state(activity):
    return activity["state"][0]


# Several worlds are made at the same time.
_ports = list(range(10_000, 32_000))
random.shuffle(_ports)


def free_port(kind=socket.SOCK_STREAM):
    """A port that nobody has, below those that the system gives to whoever wants any, and that nobody is given twice."""
    while True:
        port = _ports.pop()
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
