"""Rentals, networks, files and forwarded ports, against real daemons and payloads."""

import asyncio
import hashlib
import os
import time

import aiohttp
import golem_vpn
import pytest
from conftest import TAG


def connect(world):
    return golem_vpn.connect(world.requestor.url, world.requestor.key)


def nothing_left(world):
    deadline = time.monotonic() + 20
    while (left := world.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, left


def test_payloads_talk_and_are_reached(world, run):
    async def program():
        async with connect(world) as vpn, vpn.network("192.168.30.0/24") as net:
            async with vpn.rent(TAG, net) as web, vpn.rent(TAG, net, hostname="other") as other:
                assert web.ip != other.ip and web.provider != other.provider
                await web.run("mkdir -p /tmp/www && echo inside > /tmp/www/f")
                await web.run(["busybox", "httpd", "-p", "80", "-h", "/tmp/www"])
                assert (await other.run(f"wget -qO- http://{web.ip}/f")).stdout == "inside\n"
                assert (await other.run("hostname")).stdout.strip() == "other"
                async with net.forward(web.ip, 80) as (host, port):
                    async with aiohttp.ClientSession() as session:
                        for _ in range(3):
                            async with session.get(f"http://{host}:{port}/f") as response:
                                assert await response.text() == "inside\n"
                # The first question makes the provider measure.
                while not (usage := await web.usage()):
                    await asyncio.sleep(0.2)
                assert usage["duration_sec"] > 0
                await net.rename(web.ip, "web")
                assert "web" in [m.name for m in await net.members()]
                await net.readdress("web", "192.168.30.77")
                assert (await other.run("wget -qO- http://192.168.30.77/f")).stdout == "inside\n"

    run(program())
    nothing_left(world)


def test_files_both_ways(world, run, tmp_path):
    content = os.urandom(1_000_003)
    (tmp_path / "up").write_bytes(content)

    async def program():
        async with connect(world) as vpn, vpn.rent(TAG) as payload:
            await payload.upload(tmp_path / "up", "/tmp/up")
            seen = (await payload.run("sha256sum /tmp/up")).stdout.split()[0]
            assert seen == hashlib.sha256(content).hexdigest()
            await payload.download("/tmp/up", tmp_path / "down")
            with pytest.raises(golem_vpn.RentalEnded):
                payload.ip

    run(program())
    assert (tmp_path / "down").read_bytes() == content
    nothing_left(world)


def test_a_failing_command_says_what_it_said(world, run):
    async def program():
        async with connect(world) as vpn, vpn.rent(TAG) as payload:
            with pytest.raises(golem_vpn.CommandFailed) as caught:
                await payload.run("echo out; echo complaint >&2; exit 3")
            assert "out" in caught.value.stdout and "complaint" in caught.value.stderr
            assert (await payload.run("echo still here")).stdout == "still here\n"

    run(program())
    nothing_left(world)


def test_nobody_for_the_work_is_told_with_the_reason(world, run):
    async def program():
        async with connect(world) as vpn:
            with pytest.raises(golem_vpn.NoProvider) as caught:
                async with vpn.rent(TAG, capabilities=["teleport"], patience=4):
                    raise AssertionError("somebody took it")
            assert "(golem.runtime.capabilities=teleport) excludes 2" in str(caught.value)

    run(program())
    nothing_left(world)


def test_an_unknown_image_and_a_wrong_key(world, run):
    async def program():
        async with connect(world) as vpn:
            with pytest.raises(golem_vpn.GolemVpnError, match="has no image `none/such`"):
                async with vpn.rent("none/such"):
                    pass
        with pytest.raises(golem_vpn.ApiError) as caught:
            async with golem_vpn.connect(world.requestor.url, "wrong"):
                pass
        assert caught.value.status == 401

    run(program())
    nothing_left(world)
