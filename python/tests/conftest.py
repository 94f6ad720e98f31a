"""The tests run against real daemons: set GOLEM_VPN_TEST_BIN to the directory of `gvpn`."""

import asyncio
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "conformance"))
if not importlib.util.find_spec("golem_vpn"):
    sys.path.insert(0, str(ROOT / "python"))
TAG = "python/test:latest"


@pytest.fixture(scope="session")
def world():
    import daemons
    import image

    binaries = Path(os.environ.get("GOLEM_VPN_TEST_BIN", ROOT / "target/debug"))
    if not (binaries / "gvpn").exists():
        pytest.fail(f"no gvpn in {binaries}: build it, or set GOLEM_VPN_TEST_BIN")
    directory = Path(tempfile.mkdtemp(prefix="golem-vpn-python-"))
    try:
        # One runtime each, so that there are as many offers as providers.
        world = daemons.World(binaries / "gvpn", directory, providers=2, runtimes=["sandbox"])
        try:
            tar = image.build(directory)
            world.requestor.ask("POST", "/gvpn/v1/images", {"path": str(tar), "tag": TAG})
            # What the example of the README asks for.
            world.requestor.ask("POST", "/gvpn/v1/images", {"path": str(tar), "tag": "golem/alpine:latest"})
            world.offers(2)
            yield world
        finally:
            world.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def run():
    """Runs a coroutine to its end, with a limit."""

    def run(coroutine, limit=120):
        return asyncio.run(asyncio.wait_for(coroutine, limit))

    return run
