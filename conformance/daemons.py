"""A relay, a requestor and providers, each a process with a data directory of its own."""

import json
import os
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 60


class Daemon:
    def __init__(self, gvpn: Path, directory: Path, name: str, *options: str):
        self.name, self.directory = name, directory / name
        self.directory.mkdir(parents=True)
        self.log = open(directory / f"{name}.log", "w")
        self.process = subprocess.Popen(
            [str(gvpn), "--data-dir", str(self.directory), *options],
            stdout=self.log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, "RUST_LOG": os.environ.get("RUST_LOG", "info,gvpn_node=debug")},
        )

    def ready(self):
        """Waits for the API; its URL and key."""
        deadline = time.monotonic() + PATIENCE
        url = self.directory / "api.url"
        while not url.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{Path(self.log.name).read_text()[-2000:]}")
            time.sleep(0.05)
        self.url = url.read_text().strip()
        self.key = (self.directory / "appkey").read_text().strip()
        return self

    def ask(self, method: str, path: str, body=None):
        request = urllib.request.Request(
            self.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()}") from None

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise RuntimeError(f"{self.name} did not stop")
        self.log.close()


class World:
    """Everything that the programs talk to."""

    def __init__(self, gvpn: Path, directory: Path, providers: int):
        self.directory, self.daemons = directory, []
        tun = directory / "tun"
        os.mknod(tun, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
        os.chmod(tun, 0o666)
        relay = f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
        self.relay = self._start(gvpn, "relay", "relay", "--listen", relay)
        common = ["--listen", "127.0.0.1:0", "--relay", relay, "--api", "127.0.0.1:0", "--tun", str(tun), "--workers", "1"]
        self.requestor = self._start(gvpn, "requestor", "daemon", "--role", "requestor", *common)
        self.providers = [
            self._start(gvpn, f"provider{i}", "daemon", "--role", "provider", "--node-name", f"provider-{i}", *common)
            for i in range(providers)
        ]
        for daemon in [self.requestor, *self.providers]:
            daemon.ready()

    def _start(self, gvpn, name, *options):
        daemon = Daemon(gvpn, self.directory, name, *options)
        self.daemons.append(daemon)
        return daemon

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

    def stop(self):
        for daemon in reversed(self.daemons):
            daemon.stop()


def state(activity):
    return activity["state"][0]


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
