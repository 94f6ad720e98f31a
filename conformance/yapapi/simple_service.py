"""A service without a network: commands, output, files both ways through `gftp`."""

import hashlib
import os
import tempfile
from pathlib import Path

from common import check, golem, image, main, until
from yapapi.services import Service, ServiceState

SIZE = 3_000_017


class Simple(Service):
    results = []
    failures = 0

    def __init__(self, directory):
        super().__init__()
        self.directory = Path(directory)

    @staticmethod
    async def get_payload():
        return await image()

    async def start(self):
        async for script in super().start():
            yield script
        script = self._ctx.new_script()
        script.upload_file(self.directory / "up", "/tmp/up")
        script.upload_bytes(b"a few bytes", "/tmp/bytes")
        yield script

    async def run(self):
        for i in range(3):
            script = self._ctx.new_script()
            future = script.run("/bin/sh", "-c", f"echo round {i}; sha256sum < /tmp/up; cat /tmp/bytes; echo complaint >&2")
            script.download_file("/tmp/up", self.directory / f"down{i}")
            yield script
            result = await future
            Simple.results.append((result.stdout, result.stderr, result.success))
        self.cluster.stop()

    async def shutdown(self):
        script = self._ctx.new_script()
        script.run("/bin/sh", "-c", "echo bye")
        yield script


async def program():
    with tempfile.TemporaryDirectory() as directory:
        content = os.urandom(SIZE)
        digest = hashlib.sha256(content).hexdigest()
        (Path(directory) / "up").write_bytes(content)
        async with golem() as g:
            cluster = await g.run_service(Simple, instance_params=[{"directory": directory}])
            ended = lambda: all(i.state == ServiceState.terminated for i in cluster.instances)
            await until("the service has done its work", lambda: len(Simple.results) == 3 and ended())
        for i, (out, err, success) in enumerate(Simple.results):
            check(f"round {i}: output and errors", success and f"round {i}" in out and "complaint" in (err or ""))
            check(f"round {i}: the uploaded file arrived whole", digest in out and "a few bytes" in out)
            down = (Path(directory) / f"down{i}").read_bytes()
            check(f"round {i}: and came back", hashlib.sha256(down).hexdigest() == digest)


main(program)
