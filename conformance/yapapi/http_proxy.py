"""Web servers on several providers; a local HTTP server spreads requests over them by the gate."""

import os

import aiohttp
from common import OnImage, check, golem, main, running, stop, until
from yapapi.contrib.service.http_proxy import HttpProxyService, LocalHttpProxy

INSTANCES = int(os.environ.get("CONFORMANCE_INSTANCES", "2"))
PORT = int(os.environ["CONFORMANCE_PORT"])


class Web(OnImage, HttpProxyService):
    def __init__(self):
        super().__init__(remote_port=8080)

    def commands(self):
        yield f"mkdir -p /tmp/www && echo from {self.id} > /tmp/www/index.html"
        yield "busybox httpd -p 8080 -h /tmp/www"


async def program():
    async with golem() as g:
        network = await g.create_network("192.168.0.1/24")
        async with network:
            cluster = await g.run_service(Web, network=network, num_instances=INSTANCES)
            await until("all instances run", lambda: len(running(cluster)) == INSTANCES)
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
            await stop(cluster)
    check("everything is torn down", True)


main(program)
