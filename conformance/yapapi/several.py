"""Several payloads at once: services in one network, a task and a demand that nobody meets; one service
fails when it starts and is tried again, one is given up while it waits, one is reset and talks."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from common import OnImage, check, golem, image, main, running, stop, until
from yapapi import Task
from yapapi.payload import Payload
from yapapi.props.base import constraint
from yapapi.services import Service, ServiceState


class Plain(OnImage, Service):
    async def run(self):
        while True:
            signal = await self._listen()
            script = self._ctx.new_script()
            result = script.run("/bin/sh", "-c", f"echo heard {signal.message}")
            yield script
            self._respond_nowait((await result).stdout)


class Failing(OnImage, Service):
    tries = 0

    def commands(self):
        Failing.tries += 1
        # The first fails.
        yield "exit 9" if Failing.tries == 1 else "echo good"


@dataclass
class Teleporter(Payload):
    capability: str = constraint("golem.runtime.capabilities", "=", default="teleport")


class Nobody(Service):
    @staticmethod
    async def get_payload():
        return Teleporter()


async def work(context, tasks):
    async for task in tasks:
        script = context.new_script(timeout=timedelta(minutes=1))
        result = script.run("/bin/sh", "-c", f"echo {task.data}")
        yield script
        task.accept_result((await result).stdout.strip())


async def tasks(g):
    wanted = [Task(data=word) for word in ["one", "two"]]
    return [t.result async for t in g.execute_tasks(work, wanted, payload=await image(), max_workers=1)]


async def program():
    async with golem() as g:
        network = await g.create_network("192.168.0.1/24")
        async with network:
            nobody = await g.run_service(Nobody, expiration=datetime.now(timezone.utc) + timedelta(minutes=10))
            plain = await g.run_service(Plain, network=network)
            await until("the plain one runs", lambda: running(plain))
            failing = await g.run_service(Failing, network=network)
            await until("the failing one runs in the end", lambda: running(failing))
            check("a service that fails when it starts is tried again", Failing.tries == 2)
            (instance,) = running(plain)
            instance.send_message_nowait("a word")
            answer = await asyncio.wait_for(instance.receive_message(), 60)
            check("a service talks with its program", answer.message == "heard a word\n")
            check("tasks beside services", sorted(await asyncio.wait_for(tasks(g), 120)) == ["one", "two"])
            check("a demand that nobody meets waits", all(i.state == ServiceState.pending for i in nobody.instances))
            await stop(plain, failing, nobody)
    check("everything is torn down", True)


main(program)
