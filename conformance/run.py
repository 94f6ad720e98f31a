#!/usr/bin/env python3
"""Golem's own clients, unmodified, against real daemons with real payloads.

    conformance/run.py [NAME..]     runs all programs, or those named (yapapi/ssh, golem-js/vpn, ..)
    --worlds N                      how many programs at a time, each with daemons of its own (default 3)
    --providers N                   how many provider daemons each has (default 3)
    --keep                          leaves the directory with the logs, also when all is well

Clients come from their registries into ~/.cache/gvpn-conformance; the binaries gvpn and gftp are to be
built first: cargo build -p gvpn -p gvpn-gftp. Prints a line a check and ends with `N passed, M failed in S s`.

A program prints `ok   WHAT` and `FAIL WHAT`. It may ask for a misfortune by a line `>> restart requestor`,
`>> kill PROVIDER` (a node id) or `>> start providers`; it hears `done` on its standard input.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import clients
import daemons
import image
import recorded

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
TAG = "conformance/image:latest"
# Those that last longest come first.
PROGRAMS = [
    "yapapi/misfortunes", "golem-js/misfortunes", "golem_vpn/tests", "golem-js/vpn", "golem-js/at-once",
    "golem-js/jobs", "golem-js/trouble", "yapapi/trouble", "yapapi/several", "golem-js/many", "golem-js/restart",
    "yapapi/resume", "yapapi/tasks", "golem-js/images", "yapapi/http_proxy", "ya-client/all", "golem-js/files",
    "golem-js/tcp-proxy", "yapapi/ssh", "yapapi/webapp", "yapapi/simple_service", "sdk/rent", "gftp/protocol",
]
LIMIT = 300
PRINT = threading.Lock()


def environment(program, world, binaries, directory):
    requestor = world.requestor
    env = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "YAGNA_API_URL": world.url,
        "YAGNA_APPKEY": requestor.key,
        "GOLEM_REGISTRY_URL": f"{world.url}/registry",
        "PAYMENT_NETWORK": "holesky",
        "CONFORMANCE_IMAGE_TAG": TAG,
        "CONFORMANCE_IMAGE": world.image,
        "CONFORMANCE_IMAGE_FILE": str(world.image_file),
        "CONFORMANCE_PORT": str(daemons.free_port()),
        "CONFORMANCE_SSH_KEY": str(directory / "ssh_key"),
        "CONFORMANCE_INSTANCES": str(min(3, len(world.providers))),
        "CONFORMANCE_PROVIDERS": str(len(world.providers)),
        "GOLEM_VPN_TEST_BIN": str(binaries),
        "CONFORMANCE_LOG": str(directory / f"{program.replace('/', '-')}.debug.log"),
    }
    env.pop("GVPN_API_URL", None)
    env.pop("GVPN_APPKEY", None)
    return env


def run(program, world, binaries, directory):
    """Runs one program; the lines of its checks."""
    start = time.monotonic()
    env = environment(program, world, binaries, directory)
    process = subprocess.Popen(
        [str(c) for c in clients.command(program, binaries)], env=env, cwd=directory, text=True, errors="replace",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    limit = threading.Timer(LIMIT, process.kill)
    limit.start()
    output = []
    with open(directory / f"{program.replace('/', '-')}.log", "w") as log:
        for line in process.stdout:
            log.write(line)
            output.append(line.rstrip("\n"))
            if line.startswith(">> "):
                world.misfortune(line[3:].split())
                try:
                    process.stdin.write("done\n")
                    process.stdin.flush()
                except BrokenPipeError:
                    pass  # it ended; its exit code says why
    code = process.wait()
    in_time = limit.is_alive()
    limit.cancel()
    lines = [line for line in output if line.startswith(("ok   ", "FAIL "))]
    if code != 0:
        end = "\n".join(output)[-3000:]
        what = f"exit {code}" if in_time else f"it was not done in {LIMIT} s"
        lines.append(f"FAIL {what}; the end of its output:\n{end}")
    if not lines:
        lines.append("FAIL it checked nothing")
    return lines, time.monotonic() - start


def judged(world):
    """The daemon's answers, held against what was recorded."""
    exchanges = world.wire.take()
    with open(world.directory / "exchanges.log", "a") as log:
        for exchange in exchanges:
            print(exchange, file=log)
    wrong, known, polls = recorded.Recorded.read().judge(exchanges)
    if wrong:
        return [f"FAIL not as recorded: {what}" for what in wrong]
    if not known:
        return []
    return [f"ok   {known} answers as recorded, {polls} long polls that waited"]


def left_behind(world):
    """What a program has left, after some time; also if providers are gone for good."""
    world.start_providers()
    deadline = time.monotonic() + 20
    while (left := world.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


class Lane:
    """Runs one program after the other in a world. A program that leaves something behind takes its
    world with it."""

    def __init__(self, directory, tar, binaries, options):
        self._directory, self._tar, self._binaries, self._options = directory, tar, binaries, options
        self._world, self._worlds = None, 0
        self.passed = self.failed = 0

    def work(self, programs):
        try:
            while programs:
                try:
                    program = programs.pop(0)
                except IndexError:  # another lane was faster
                    break
                self._try(program)
        finally:
            self._end()

    def _try(self, program):
        seconds = 0
        try:
            world = self._world or self._begin()
            lines, seconds = run(program, world, self._binaries, world.directory)
            lines += judged(world)
            left = left_behind(world)
            lines.append("FAIL left behind: " + ", ".join(left) if left else "ok   nothing is left behind")
        except Exception:
            lines, left = ["FAIL " + traceback.format_exc()], True
        bad = [line for line in lines if line.startswith("FAIL")]
        if bad and self._world:
            lines += self._world.last_words()
        if left:
            self._end()
        with PRINT:
            self.passed += sum(line.startswith("ok") for line in lines)
            self.failed += len(bad)
            print(f"{program} ({seconds:.0f} s)", *lines, sep="\n  ", flush=True)

    def _begin(self):
        self._worlds += 1
        directory = self._directory / str(self._worlds)
        directory.mkdir(parents=True)
        world = daemons.World(self._binaries / "gvpn", directory, self._options.providers)
        self._world = world
        world.image_file = self._tar
        imported = world.requestor.ask("POST", "/gvpn/v1/images", {"path": str(self._tar), "tag": TAG})
        world.image = f"hash:sha3:{imported['sha3']}:{world.requestor.url}/registry/download/{imported['sha3']}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "ssh_key"], check=True)
        return world

    def _end(self):
        world, self._world = self._world, None
        if world:
            world.stop()


def run_all(options, binaries, directory):
    """Runs the programs; how many checks passed and failed."""
    tar = image.build(directory)
    programs = list(options.programs)
    count = max(1, min(options.worlds, len(programs)))
    lanes = [Lane(directory / f"lane{i}", tar, binaries, options) for i in range(count)]
    threads = [threading.Thread(target=lane.work, args=[programs]) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(lane.passed for lane in lanes), sum(lane.failed for lane in lanes)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", default=PROGRAMS)
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--providers", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    unknown = set(options.programs) - set(PROGRAMS)
    if unknown:
        parser.error(f"no such program: {', '.join(unknown)}; there are: {', '.join(PROGRAMS)}")
    return options


def main():
    options = arguments()
    found = (d for d in [TARGET / "release", TARGET / "debug"] if (d / "gvpn").exists() and (d / "gftp").exists())
    binaries = next(found, None)
    if binaries is None:
        sys.exit(f"build the binaries first: cargo build -p gvpn -p gvpn-gftp (looked in {TARGET})")
    clients.install(options.programs)
    directory = Path(tempfile.mkdtemp(prefix="gvpn-conformance-"))
    start, failed = time.monotonic(), 1
    try:
        passed, failed = run_all(options, binaries, directory)
    finally:
        if options.keep or failed:
            print(f"logs: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed in {time.monotonic() - start:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
