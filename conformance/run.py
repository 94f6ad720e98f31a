#!/usr/bin/env python3
"""Golem's own clients, unmodified, against real daemons with real payloads.

    conformance/run.py [NAME..]     runs all programs, or those named (yapapi/ssh, golem-js/vpn, ..)
    --providers N                   how many provider daemons (default 3)
    --keep                          leaves the directory with the logs

Clients come from their registries into target/conformance; the binaries gvpn and gftp are to be built
first: cargo build -p gvpn -p gvpn-gftp. Prints a line a check and ends with `N passed, M failed`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import daemons
import image

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
CLIENTS = TARGET / "conformance"
YAPAPI = "yapapi==0.13.1"
TAG = "conformance/image:latest"
PROGRAMS = [
    "yapapi/simple_service", "yapapi/http_proxy", "yapapi/ssh", "yapapi/webapp",
    "golem-js/vpn", "golem-js/tcp-proxy", "golem-js/files",
]
LIMIT = 400


def install(programs):
    CLIENTS.mkdir(parents=True, exist_ok=True)
    if any(p.startswith("yapapi/") for p in programs) and not (CLIENTS / "venv/.done").exists():
        print("installing yapapi", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", CLIENTS / "venv"], check=True)
        subprocess.run([CLIENTS / "venv/bin/pip", "install", "-q", YAPAPI], check=True)
        (CLIENTS / "venv/.done").touch()
    if any(p.startswith("golem-js/") for p in programs):
        shutil.copytree(HERE / "golem-js", CLIENTS / "golem-js", dirs_exist_ok=True)
        if not (CLIENTS / "golem-js/node_modules").exists():
            print("installing golem-js", flush=True)
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=CLIENTS / "golem-js", check=True)


def command(program):
    client, name = program.split("/")
    if client == "yapapi":
        return [CLIENTS / "venv/bin/python", HERE / f"yapapi/{name}.py"]
    if client == "golem-js":
        return ["node", CLIENTS / f"golem-js/{name}.mjs"]
    raise ValueError(f"no client {client}")


def run(program, world, binaries, directory):
    """Runs one program; the lines of its checks."""
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
        "CONFORMANCE_LOG": str(directory / f"{program.replace('/', '-')}.debug.log"),
    }
    env.pop("GVPN_API_URL", None)
    env.pop("GVPN_APPKEY", None)
    log = directory / f"{program.replace('/', '-')}.log"
    start = time.monotonic()
    with open(log, "w") as out:
        process = subprocess.Popen(
            [str(c) for c in command(program)], env=env, stdout=out, stderr=subprocess.STDOUT, cwd=directory,
        )
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "timeout"
    text = log.read_text(errors="replace")
    lines = [line for line in text.splitlines() if line.startswith(("ok   ", "FAIL "))]
    if code != 0:
        lines.append(f"FAIL exit {code}; the end of its output:\n{text[-3000:]}")
    if not lines:
        lines.append("FAIL it checked nothing")
    seconds = time.monotonic() - start
    deadline = time.monotonic() + 20
    while (left := world.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.5)
    lines.append("FAIL left behind: " + ", ".join(left) if left else "ok   nothing is left behind")
    return lines, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", default=PROGRAMS)
    parser.add_argument("--providers", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    unknown = set(options.programs) - set(PROGRAMS)
    if unknown:
        parser.error(f"no such program: {', '.join(unknown)}; there are: {', '.join(PROGRAMS)}")
    binaries = next((d for d in [TARGET / "release", TARGET / "debug"] if (d / "gvpn").exists() and (d / "gftp").exists()), None)
    if binaries is None:
        sys.exit(f"build the binaries first: cargo build -p gvpn -p gvpn-gftp (looked in {TARGET})")
    install(options.programs)
    directory = Path(tempfile.mkdtemp(prefix="gvpn-conformance-"))
    passed = failed = 0
    world = None
    try:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "ssh_key"], check=True)
        tar = image.build(directory)
        world = daemons.World(binaries / "gvpn", directory, options.providers)
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
        if world:
            world.stop()
        if options.keep:
            print(f"logs: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
