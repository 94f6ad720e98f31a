"""Web servers on several providers; a local HTTP server spreads requests over them by the gate."""

import asyncio
import os

import aiohttp
from common import check, golem, image, main, until
from yapapi.contrib.service.http_proxy import HttpProxyService, LocalHttpProxy
from yapapi.services import ServiceState

INSTANCES = int(os.environ.get("CONFORMANCE_INSTANCES", "2"))
PORT = int(os.environ["CONFORMANCE_PORT"])


class Web(HttpProxyService):
    def __init__(self):
        super().__init__(remote_port=8080)

    @staticmethod
    async def get_payload():
        return await image()

    async def start(self):
        async for script in super().start():
            yield script
        script = self._ctx.new_script()
        script.run("/bin/sh", "-c", f"mkdir -p /tmp/www && echo from {self.id} > /tmp/www/index.html")
        script.run("/bin/sh", "-c", "busybox httpd -p 8080 -h /tmp/www")
        yield script


async def program():
    async with golem() as g:
        network = await g.create_network("192.168.0.1/24")
        async with network:
            cluster = await g.run_service(Web, network=network, num_instances=INSTANCES)
            states = lambda: [i.state for i in cluster.instances]
            await until(
                "all instances run",
                lambda: len(states()) == INSTANCES and all(s == ServiceState.running for s in states()),
            )
            check(f"{INSTANCES} instances run", True)
            proxy = LocalHttpProxy(cluster, PORT)
            await proxy.run()
            seen = set()
            async with aiohttp.ClientSession() as session:
                for _ in range(4 * INSTANCES):
                    async with session.get(f"http://localhost:{PORT}/index.html") as response:
                        text = await response.text()
                        assert response.status == 200 and text.startswith("from "), text
                        seen.add(text)
            check("requests reach every instance", len(seen) == INSTANCES)
            await proxy.stop()
            cluster.stop()
            await until("all instances end", lambda: all(not i.is_available for i in cluster.instances))
    check("everything is torn down", True)


main(program)
