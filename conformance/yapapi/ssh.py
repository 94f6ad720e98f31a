"""An sshd on each provider, and a stock ssh client that reaches it through the gate."""

import asyncio
import os

from common import OnImage, check, golem, main, running, stop, until
from yapapi.contrib.service.socket_proxy import SocketProxy, SocketProxyService

PORT = int(os.environ["CONFORMANCE_PORT"])
KEY = os.environ["CONFORMANCE_SSH_KEY"]


class Ssh(OnImage, SocketProxyService):
    remote_port = 22

    def __init__(self, proxy):
        super().__init__()
        self.proxy = proxy

    def commands(self):
        with open(f"{KEY}.pub") as f:
            key = f.read().strip()
        yield f"mkdir -p /root/.ssh && echo '{key}' > /root/.ssh/authorized_keys && chmod -R go-rwx /root/.ssh"
        yield "/etc/start-sshd"

    async def start(self):
        async for script in super().start():
            yield script
        server = await self.proxy.run_server(self, self.remote_port)
        self.local = server.local_port


async def ssh(port, command):
    process = await asyncio.create_subprocess_exec(
        "ssh", "-i", KEY, "-p", str(port), "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
        "root@127.0.0.1", command,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def program():
    async with golem() as g:
        network = await g.create_network("192.168.0.1/24")
        proxy = SocketProxy(ports=[PORT, PORT + 1])
        async with network:
            cluster = await g.run_service(
                Ssh, network=network, instance_params=[{"proxy": proxy} for _ in range(2)]
            )
            await until("both instances run", lambda: len(running(cluster)) == 2)
            first, second = running(cluster)
            ip = second.network_node.ip
            out = await ssh(first.local, f"echo inside; hostname -i; ping -c 2 -w 10 {ip}")
            check("ssh runs a command in the payload", out.startswith("inside"))
            check("the payload reaches the other one", " 0% packet loss" in out)
            size = 3_000_000
            bulk = await ssh(second.local, f"head -c {size} /dev/zero | tr '\\0' x; echo; echo end")
            check("bulk comes through whole", bulk == "x" * size + "\nend\n")
            await proxy.stop()
            await stop(cluster)
    check("everything is torn down", True)


main(program)
