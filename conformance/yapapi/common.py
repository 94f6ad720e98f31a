"""What the programs of this directory share: services on the test image, and an orderly end."""

import asyncio
import os
import sys
from datetime import timedelta

from yapapi import Golem
from yapapi.log import enable_default_logger
from yapapi.payload import vm
from yapapi.services import ServiceState

TAG = os.environ["CONFORMANCE_IMAGE_TAG"]
REGISTRY = os.environ["GOLEM_REGISTRY_URL"]
READY = timedelta(minutes=4)


async def image():
    """The test image, from the daemon's own registry."""
    return await vm.repo(
        image_tag=TAG,
        repository_url=REGISTRY,
        min_mem_gib=0.25,
        min_storage_gib=0.5,
        capabilities=[vm.VM_CAPS_VPN],
    )


class OnImage:
    """A service on the test image, which runs shell commands when it starts."""

    @staticmethod
    async def get_payload():
        return await image()

    def commands(self):
        return []

    async def start(self):
        async for script in super().start():
            yield script
        script = self._ctx.new_script()
        for command in self.commands():
            script.run("/bin/sh", "-c", command)
        yield script


def running(cluster):
    return [i for i in cluster.instances if i.state == ServiceState.running]


async def stop(*clusters):
    """Stops services, the last first, until nothing of them is left."""
    for cluster in reversed(clusters):
        cluster.stop()
    for cluster in clusters:
        await until("all instances end", lambda: all(not i.is_available for i in cluster.instances))


def golem():
    return Golem(budget=1.0, subnet_tag="public")


async def until(what, condition, seconds=READY.total_seconds()):
    """Waits until `condition()` holds."""
    for _ in range(int(seconds * 5)):
        if condition():
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"{what} did not come about")


async def misfortune(what):
    """Has `run.py` do something bad, and waits until it is done."""
    print(f">> {what}", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def check(what, good):
    if not good:
        raise AssertionError(what)
    print(f"ok   {what}", flush=True)


def main(program):
    enable_default_logger(log_file=os.environ.get("CONFORMANCE_LOG"))
    try:
        asyncio.run(asyncio.wait_for(program(), READY.total_seconds() * 1.5))
    except Exception as error:  # noqa
        import traceback

        traceback.print_exc()
        print(f"FAIL {type(error).__name__}: {error}", flush=True)
        sys.exit(1)
