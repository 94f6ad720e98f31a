"""More tasks than providers: each takes the next when it is done, one of them fails and is tried again."""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from common import check, golem, image, main, until
from yapapi import Task, WorkContext

TASKS = 8
WORKERS = int(os.environ.get("CONFORMANCE_INSTANCES", "2"))


async def program():
    failed, by = set(), set()
    with tempfile.TemporaryDirectory() as directory:

        async def worker(context: WorkContext, tasks):
            async for task in tasks:
                script = context.new_script(timeout=timedelta(minutes=2))
                script.upload_json({"number": task.data}, "/tmp/in.json")
                if task.data == 3 and not failed:
                    failed.add(task.data)
                    script.run("/bin/sh", "-c", "echo no; exit 7")
                else:
                    script.run("/bin/sh", "-c", "tr -dc 0-9 < /tmp/in.json > /tmp/out; sleep 0.5")
                    script.download_file("/tmp/out", f"{directory}/{task.data}")
                yield script
                by.add(context.provider_id)
                task.accept_result(Path(f"{directory}/{task.data}").read_text())
                # One that is very fast leaves something to do for the others.
                await until("another has done a task", lambda: len(by) >= min(2, WORKERS))

        async with golem() as g:
            tasks = [Task(data=number) for number in range(TASKS)]
            done = {}
            async for task in g.execute_tasks(
                worker, tasks, payload=await image(), max_workers=WORKERS, timeout=timedelta(minutes=4)
            ):
                done[task.data] = task.result
        check("every task is done", done == {number: str(number) for number in range(TASKS)})
        check("also the one that had failed", failed == {3})
        check("by several providers", len(by) > 1 or WORKERS == 1)


main(program)
