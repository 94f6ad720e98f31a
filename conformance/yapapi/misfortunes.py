"""A provider dies: its instance ends, the other one runs on.

A restart of the requestor's daemon is not tried here: yapapi ends with the first refused connection."""

import os

import aiohttp
from common import OnImage, check, golem, main, misfortune, running, stop, until
from yapapi.contrib.service.http_proxy import HttpProxyService, LocalHttpProxy

PORT = int(os.environ["CONFORMANCE_PORT"])


class Web(OnImage, HttpProxyService):
    def __init__(self):
        super().__init__(remote_port=8080)

    def commands(self):
        yield f"mkdir -p /tmp/www && echo from {self.id} > /tmp/www/index.html"
        yield "busybox httpd -p 8080 -h /tmp/www"

    async def run(self):
        # Commands that go on: one that fails is how yapapi learns that the provider is dead.
        while True:
            script = self._ctx.new_script()
            script.run("/bin/sh", "-c", "sleep 2")
            yield script


async def ask():
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://localhost:{PORT}/index.html") as response:
            text = await response.text()
            return text if response.status == 200 and text.startswith("from ") else None


async def program():
    async with golem() as g:
        network = await g.create_network("192.168.0.1/24")
        async with network:
            cluster = await g.run_service(Web, network=network, num_instances=2)
            await until("both instances run", lambda: len(running(cluster)) == 2)
            proxy = LocalHttpProxy(cluster, PORT)
            await proxy.run()
            check("requests are answered", await ask())
            victim, other = running(cluster)
            await misfortune(f"kill {victim.provider_id}")
            await until("the end of the one is noticed", lambda: victim not in running(cluster))
            check("a dead provider's instance ends", True)
            check("the other one runs on", other in running(cluster))
            check("and answers", await ask())
            await misfortune("start providers")
            await proxy.stop()
            await stop(cluster)
    check("everything is torn down", True)


main(program)
