"""Things go wrong, or are given up: a command that fails, a file that is not there, a time limit, an
image that nobody has, a program that is interrupted while it bargains."""

import asyncio
from datetime import timedelta

from common import REGISTRY, TAG, check, golem, image, main
from yapapi import Task
from yapapi.payload import vm
from yapapi.rest.activity import BatchTimeoutError, CommandExecutionError

seen = []


async def worker(context, tasks):
    async for task in tasks:
        script = context.new_script(timeout=timedelta(seconds=4))
        task.data(script)
        try:
            yield script
            seen.append((task.data.__name__, "went well"))
        except Exception as error:
            seen.append((task.data.__name__, error))
            task.accept_result(None)
            # The activity is over for yapapi.
            raise
        task.accept_result(None)


def fails(script):
    script.run("/bin/sh", "-c", "echo out; echo complaint >&2; exit 3")


def missing_file(script):
    script.download_file("/tmp/no-such-file", "/tmp/never")


def too_long(script):
    script.run("/bin/sleep", "1000")


def good(script):
    script.run("/bin/echo", "good")


async def errors():
    async with golem() as g:
        tasks = [Task(data=what) for what in [fails, missing_file, too_long, good]]
        async for _ in g.execute_tasks(worker, tasks, payload=await image(), max_workers=1, timeout=timedelta(minutes=4)):
            pass
    by = dict(seen)
    failed = by["fails"]
    check("a failing command is an error with its output", isinstance(failed, CommandExecutionError) and "complaint" in str(failed.stderr))
    check("a missing file is one", isinstance(by["missing_file"], CommandExecutionError))
    check("so is a batch that takes too long", isinstance(by["too_long"], BatchTimeoutError))
    check("and the next goes well", by["good"] == "went well")


async def unknown_image():
    try:
        await vm.repo(image_tag="no/such:image", repository_url=REGISTRY)
    except Exception as error:
        check(f"an unknown image is told: {str(error)[:100]}", "404" in str(error) or "no/such" in str(error))
    else:
        check("an unknown image is told", False)


async def interrupted():
    async def search():
        async with golem() as g:
            nobody = await vm.repo(image_tag=TAG, repository_url=REGISTRY, capabilities=["teleport"])
            async for _ in g.execute_tasks(worker, [Task(data=good)], payload=nobody, timeout=timedelta(minutes=4)):
                pass

    searching = asyncio.create_task(search())
    await asyncio.sleep(3)
    searching.cancel()
    try:
        await asyncio.wait_for(searching, 60)
    except asyncio.CancelledError:
        check("a program that is interrupted while it searches ends", True)


async def program():
    await errors()
    await unknown_image()
    await interrupted()


main(program)
