"""Services outlive the program that made them, and a restart of the requestor's daemon: another program
takes them up again."""

import os

import aiohttp
from common import OnImage, check, golem, main, misfortune, running, stop, until
from yapapi.contrib.service.http_proxy import HttpProxyService, LocalHttpProxy

PORT = int(os.environ["CONFORMANCE_PORT"])


class Web(OnImage, HttpProxyService):
    def __init__(self, _id=None):
        # yapapi makes an instance again with what it was serialized with.
        super().__init__(remote_port=8080)

    def commands(self):
        yield "mkdir -p /tmp/www && echo from a service > /tmp/www/index.html"
        yield "busybox httpd -p 8080 -h /tmp/www"


async def begin():
    g = golem()
    await g.start()
    network = await g.create_network("192.168.0.1/24")
    cluster = await g.run_service(Web, network=network, num_instances=2)
    await until("both instances run", lambda: len(running(cluster)) == 2)
    kept = network.serialize(), cluster.serialize_instances()
    cluster.suspend()
    await g.stop(wait_for_payments=False)
    return kept


async def go_on(network, instances):
    async with golem() as g:
        network = await g.resume_network(network)
        async with network:
            cluster = await g.resume_service(Web, instances=instances, network=network)
            await until("both instances run again", lambda: len(running(cluster)) == 2)
            check("both are taken up", True)
            proxy = LocalHttpProxy(cluster, PORT)
            await proxy.run()
            async with aiohttp.ClientSession() as session:
                for _ in range(4):
                    async with session.get(f"http://localhost:{PORT}/index.html") as response:
                        assert await response.text() == "from a service\n"
            check("and answer", True)
            await proxy.stop()
            await stop(cluster)


async def program():
    kept = await begin()
    check("two instances are left running", True)
    await misfortune("restart requestor")
    await go_on(*kept)
    check("everything is torn down", True)


main(program)
