"""Networks, their members, and the way into them."""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, AsyncIterator, Dict, List, Optional, Set, Tuple

import aiohttp

from . import api
from .errors import ApiError

if TYPE_CHECKING:
    from .client import Client

_BLOCK = 64 * 1024


@dataclass(frozen=True)
class Member:
    """An address of a network, and who has it."""

    #: Its number in the network.
    id: int
    #: The node it is on.
    node: str
    #: Its addresses.
    ips: Tuple[str, ...]
    #: Its name.
    name: Optional[str]


class Network:
    """A network of this daemon. It is removed at the end of its `async with`."""

    def __init__(self, client: "Client", prefix: str, name: Optional[str] = None):
        self._client, self._prefix, self._name = client, prefix, name
        self._lock = asyncio.Lock()
        #: Its id, once it is there.
        self.id = ""
        #: Its prefix, such as `192.168.0.0/24`.
        self.ip = ""
        self._mask = ""
        self._gateway = ""

    async def __aenter__(self) -> "Network":
        made = await self._client.api.create_network({"ip": self._prefix})
        self.id, self.ip = made["id"], made["ip"]
        self._mask, self._gateway = made["mask"], made["gateway"]
        if self._name:
            await self._client.api.edit_network(self.id, {"name": self._name})
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ApiError):
            await self._client.api.remove_network(self.id)

    async def members(self) -> List[Member]:
        """Everybody in the network, its owner too."""
        return [_member(row) for row in await self._client.api.members(self.id)]

    async def readdress(self, member: str, *ips: str) -> Member:
        """Gives a member other addresses while its payload runs. `member` is its name, number or
        one of its addresses."""
        return await self._change(member, {"ips": list(ips)})

    async def rename(self, member: str, name: str) -> Member:
        """Gives a member another name while its payload runs."""
        return await self._change(member, {"name": name})

    async def quarantine(self, member: str, on: bool = True) -> Member:
        """Cuts a member off, or lets it in again."""
        return await self._change(member, {"quarantined": on})

    async def connect(self, ip: str, port: int) -> aiohttp.ClientWebSocketResponse:
        """A TCP connection to a payload: binary frames both ways, their borders mean nothing."""
        return await self._client.http.socket(f"/net-api/v1/net/{self.id}/tcp/{ip}/{port}")

    @asynccontextmanager
    async def forward(
        self, ip: str, port: int, *, local_host: str = "127.0.0.1", local_port: int = 0
    ) -> AsyncIterator[Tuple[str, int]]:
        """Leads a local port to a payload's; yields the local host and port."""
        running: Set["asyncio.Task[None]"] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            running.add(task)
            try:
                socket = await self.connect(ip, port)
                await _bridge(reader, writer, socket)
            except (ApiError, OSError, asyncio.CancelledError):
                pass  # The local end is closed, which is what a refused connection looks like.
            finally:
                writer.close()
                running.discard(task)

        server = await asyncio.start_server(serve, local_host, local_port)
        try:
            bound = server.sockets[0].getsockname()
            yield str(bound[0]), int(bound[1])
        finally:
            server.close()
            for task in list(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def admit(self, node: str) -> str:
        """Gives a provider's node the next free address; returns it."""
        async with self._lock:
            taken = {ip for member in await self.members() for ip in member.ips}
            taken.add(self._gateway)
            network = ipaddress.ip_network(self.ip)
            free = next((str(ip) for ip in network.hosts() if str(ip) not in taken), None)
            if free is None:
                raise ApiError(409, f"network {self.ip} is full")
            await self._client.api.add_node(self.id, {"id": node, "ip": free})
            return free

    async def dismiss(self, ip: str) -> None:
        """Takes an address out of the network."""
        with suppress(ApiError):
            await self._client.api.remove_member(self.id, ip)

    async def deployment(self, ip: str) -> Dict[str, Any]:
        """This network as a DEPLOY command names it."""
        members = await self.members()
        nodes = {address: member.node for member in members for address in member.ips}
        return {
            "id": self.id,
            "ip": str(ipaddress.ip_network(self.ip).network_address),
            "mask": self._mask,
            "gateway": self._gateway,
            "nodeIp": ip,
            "nodes": nodes,
        }

    async def _change(self, member: str, change: api.MemberEdit) -> Member:
        return _member(await self._client.api.edit_member(self.id, member, change))


def _member(row: api.Member) -> Member:
    return Member(row["id"], row["node"], tuple(row["ips"]), row.get("name"))


async def _bridge(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    socket: aiohttp.ClientWebSocketResponse,
) -> None:
    """Bytes both ways until the payload's side ends."""

    async def out() -> None:
        while block := await reader.read(_BLOCK):
            await socket.send_bytes(block)

    sending = asyncio.ensure_future(out())
    try:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                break
            writer.write(message.data)
            await writer.drain()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await socket.close()
