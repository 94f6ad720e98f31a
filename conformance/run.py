#!/usr/bin/env python3
"""Golem's own clients, unmodified, against real daemons with real payloads.

    conformance/run.py [NAME..]     runs all programs, or those named (yapapi/ssh, golem-js/vpn, ..)
    --providers N                   how many provider daemons (default 3)
    --keep                          leaves the directory with the logs

Clients come from their registries into ~/.cache/gvpn-conformance; the binaries gvpn and gftp are to be
built first: cargo build -p gvpn -p gvpn-gftp. Prints a line a check and ends with `N passed, M failed`.

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
from pathlib import Path

import clients
import daemons
import image

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
TAG = "conformance/image:latest"
PROGRAMS = [
    "yapapi/simple_service", "yapapi/http_proxy", "yapapi/ssh", "yapapi/webapp", "yapapi/misfortunes",
    "golem-js/vpn", "golem-js/tcp-proxy", "golem-js/files", "golem-js/at-once", "golem-js/misfortunes",
    "ya-client/all", "golem_vpn/tests", "sdk/rent", "gftp/protocol",
]
LIMIT = 300


def environment(program, world, binaries, directory):
    requestor = world.requestor
    env = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "YAGNA_API_URL": requestor.url,
        "YAGNA_APPKEY": requestor.key,
        "GOLEM_REGISTRY_URL": f"{requestor.url}/registry",
        "PAYMENT_NETWORK": "holesky",
        "CONFORMANCE_IMAGE_TAG": TAG,
        "CONFORMANCE_IMAGE": world.image,
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
                process.stdin.write("done\n")
                process.stdin.flush()
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
    seconds = time.monotonic() - start
    world.start_providers()
    lines.append(left_behind(world))
    return lines, seconds


def left_behind(world):
    deadline = time.monotonic() + 20
    while (left := world.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return "FAIL left behind: " + ", ".join(left) if left else "ok   nothing is left behind"


def run_all(options, binaries, directory):
    """Runs the programs against a world of their own; how many checks passed and failed."""
    passed = failed = 0
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "ssh_key"], check=True)
    tar = image.build(directory)
    world = daemons.World(binaries / "gvpn", directory, options.providers)
    try:
        imported = world.requestor.ask("POST", "/gvpn/v1/images", {"path": str(tar), "tag": TAG})
        world.image = f"hash:sha3:{imported['sha3']}:{world.requestor.url}/registry/download/{imported['sha3']}"
        for program in options.programs:
            lines, seconds = run(program, world, binaries, directory)
            print(f"{program} ({seconds:.0f} s)", flush=True)
            for line in lines:
                print(f"  {line}", flush=True)
                passed += line.startswith("ok")
                failed += line.startswith("FAIL")
    finally:
        world.stop()
    return passed, failed


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", default=PROGRAMS)
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
    try:
        passed, failed = run_all(options, binaries, directory)
    finally:
        if options.keep:
            print(f"logs: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
