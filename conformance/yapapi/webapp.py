"""A database on one provider; a web application on another reaches it by its VPN address; the
requestor publishes the application locally."""

import os

import aiohttp
from common import OnImage, check, golem, main, running, stop, until
from yapapi.contrib.service.http_proxy import HttpProxyService, LocalHttpProxy
from yapapi.services import Service

PORT = int(os.environ["CONFORMANCE_PORT"])


class Db(OnImage, Service):
    def commands(self):
        # A line protocol is database enough: what is stored is what was sent last.
        yield "/etc/start-db 5432"


class App(OnImage, HttpProxyService):
    def __init__(self, db):
        super().__init__(remote_port=5000)
        self.db = db

    def commands(self):
        yield f"/etc/start-app 5000 {self.db} 5432"


async def program():
    async with golem() as g:
        network = await g.create_network("192.168.0.1/24")
        async with network:
            db = await g.run_service(Db, network=network)
            await until("the database runs", lambda: running(db))
            address = running(db)[0].network_node.ip
            app = await g.run_service(App, network=network, instance_params=[{"db": address}])
            await until("the application runs", lambda: running(app))
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
            await stop(db, app)
    check("everything is torn down", True)


main(program)
