"""The package makes the calls that the daemon describes."""

import subprocess
import sys

from conftest import ROOT


def test_the_calls_are_those_of_the_openapi_document(world):
    generate = [sys.executable, ROOT / "python/generate.py", "--check"]
    done = subprocess.run([*generate, f"{world.requestor.url}/openapi.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_asked_past_them():
    sources = (ROOT / "python/golem_vpn").glob("*.py")
    askers = {file.name for file in sources if "http.ask(" in file.read_text()}
    assert askers == {"api.py"}
