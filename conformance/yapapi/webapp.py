"""A database on one provider; a web application on another reaches it by its VPN address; the
requestor publishes the application locally."""

import asyncio
import os

import aiohttp
from common import check, golem, image, main, until
from yapapi.contrib.service.http_proxy import HttpProxyService, LocalHttpProxy
from yapapi.services import Service, ServiceState

PORT = int(os.environ["CONFORMANCE_PORT"])


class Db(Service):
    @staticmethod
    async def get_payload():
        return await image()

    async def start(self):
        async for script in super().start():
            yield script
        script = self._ctx.new_script()
        # A line protocol is database enough: what is stored is what was sent last.
        script.run("/bin/sh", "-c", "/etc/start-db 5432")
        yield script


class App(HttpProxyService):
    def __init__(self, db):
        super().__init__(remote_port=5000)
        self.db = db

    @staticmethod
    async def get_payload():
        return await image()

    async def start(self):
        async for script in super().start():
            yield script
        script = self._ctx.new_script()
        script.run("/bin/sh", "-c", f"/etc/start-app 5000 {self.db} 5432")
        yield script


def up(cluster):
    return [i for i in cluster.instances if i.state == ServiceState.running]


async def program():
    async with golem() as g:
        network = await g.create_network("192.168.0.1/24")
        async with network:
            db = await g.run_service(Db, network=network)
            await until("the database runs", lambda: up(db))
            address = up(db)[0].network_node.ip
            app = await g.run_service(App, network=network, instance_params=[{"db": address}])
            await until("the application runs", lambda: up(app))
            proxy = LocalHttpProxy(app, PORT)
            await proxy.run()
            async with aiohttp.ClientSession() as session:
                url = f"http://localhost:{PORT}/cgi-bin"
                async with session.get(f"{url}/put?hello-from-golem") as response:
                    text = await response.text()
                    check("the application stores", response.status == 200 and "stored" in text)
                async with session.get(f"{url}/get") as response:
                    text = await response.text()
                    check(f"and reads back over the VPN ({text})", "hello-from-golem" in text)
            await proxy.stop()
            app.stop()
            db.stop()
            await until("all instances end", lambda: not up(app) and not up(db))
    check("everything is torn down", True)


main(program)
