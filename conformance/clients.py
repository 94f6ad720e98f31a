"""The clients, each from its own registry into a cache outside the clone, and how programs of theirs
are started."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gvpn-conformance"
PYTHON = CACHE / "venv/bin/python"
NODE = CACHE / "golem-js"
YA_CLIENT = CACHE / "ya-client"


def install(programs):
    """What these programs need; quick when it is there."""
    kinds = {program.split("/")[0] for program in programs}
    CACHE.mkdir(parents=True, exist_ok=True)
    if kinds & {"yapapi", "golem_vpn", "gftp"}:
        install_python()
    if "golem-js" in kinds:
        install_node()
    if "ya-client" in kinds:
        build_ya_client()


def install_python():
    wanted = (HERE / "requirements.txt").read_text()
    done = CACHE / "venv/requirements.txt"
    if done.exists() and done.read_text() == wanted:
        return
    say("yapapi and what the tests of golem_vpn need, from PyPI")
    subprocess.run([sys.executable, "-m", "venv", "--clear", CACHE / "venv"], check=True)
    pip = [PYTHON, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"]
    subprocess.run(pip, check=True)
    done.write_text(wanted)


def install_node():
    # Node looks for packages beside the program, so the programs go where the packages are.
    shutil.copytree(HERE / "golem-js", NODE, dirs_exist_ok=True)
    wanted = (HERE / "golem-js/package-lock.json").read_text()
    done = NODE / "node_modules/.wanted"
    if done.exists() and done.read_text() == wanted:
        return
    say("golem-js, from npm")
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=NODE, check=True)
    done.write_text(wanted)


def build_ya_client():
    say("ya-client, from crates.io")
    env = {**os.environ, "CARGO_TARGET_DIR": str(YA_CLIENT), "CARGO_INCREMENTAL": "0"}
    subprocess.run(["cargo", "build", "-q", "--locked"], cwd=HERE / "ya-client", env=env, check=True)


def command(program, binaries):
    """The command line of a program."""
    client, name = program.split("/")
    return {
        "gftp": [PYTHON, HERE / f"gftp/{name}.py"],
        "yapapi": [PYTHON, HERE / f"yapapi/{name}.py"],
        "golem-js": ["node", NODE / f"{name}.mjs"],
        "ya-client": [YA_CLIENT / "debug/ya-client-conformance"],
        "sdk": [sys.executable, HERE / "sdk_example.py", binaries / f"examples/{name}", name],
        "golem_vpn": [PYTHON, HERE / "python_package.py"],
    }[client]


def say(what):
    print(f"installing {what}", flush=True)
