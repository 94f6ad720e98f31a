"""A payload on a provider."""

from __future__ import annotations

import asyncio
import json
import shlex
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

from .api import ResultRow
from .errors import ApiError, CommandFailed, RentalEnded
from .market import PLATFORM, Bargain, demand, settle
from .network import Network

if TYPE_CHECKING:
    from .client import Client


@dataclass(frozen=True)
class Output:
    """What a command wrote."""

    #: Its standard output.
    stdout: str
    #: Its standard error.
    stderr: str


class Rental:
    """A payload on a provider, deployed and started. At the end of its `async with` it is
    destroyed, its agreement terminated and its (zero) invoice accepted."""

    def __init__(
        self,
        client: "Client",
        image: Optional[str],
        network: Optional[Network],
        *,
        runtime: str = "vm",
        capabilities: Sequence[str] = (),
        mem_gib: float = 0.5,
        storage_gib: float = 1.0,
        cpu_threads: int = 1,
        subnet: str = "public",
        hours: float = 1.0,
        patience: float = 60.0,
        hostname: Optional[str] = None,
    ):
        self._client, self._image, self._network = client, image, network
        wanted = list(capabilities)
        if network is not None and "vpn" not in wanted:
            wanted.append("vpn")
        self._wishes: Dict[str, Any] = {
            "runtime": runtime,
            "capabilities": wanted,
            "mem_gib": mem_gib,
            "storage_gib": storage_gib,
            "cpu_threads": cpu_threads,
            "subnet": subnet,
            "hours": hours,
        }
        self._patience, self._hostname = patience, hostname
        self._cleanup = AsyncExitStack()
        self._activity = ""
        self._agreement = ""
        #: The provider's node id.
        self.provider = ""
        self._ip: Optional[str] = None

    @property
    def ip(self) -> str:
        """Its address in the network."""
        if self._ip is None:
            raise RentalEnded("this rental is not in a network: give one to `rent`")
        return self._ip

    async def __aenter__(self) -> "Rental":
        try:
            await self._start()
        except BaseException:
            await self._cleanup.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cleanup.aclose()

    async def run(self, command: Union[str, Sequence[str]]) -> Output:
        """Runs a command in the payload: a line for its shell, or a program and its arguments."""
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        at_end = {"atEnd": {"format": "string"}}
        run = {
            "entry_point": words[0],
            "args": words[1:],
            "capture": {"stdout": at_end, "stderr": at_end},
        }
        result = (await self._exec([{"run": run}], shlex.join(words)))[-1]
        return Output(result.get("stdout") or "", result.get("stderr") or "")

    async def transfer(self, source: str, target: str) -> None:
        """Moves a file by URL: `gftp://`, `http(s)://` or `container:/path` on either side."""
        await self._exec([{"transfer": {"from": source, "to": target}}], f"transfer to {target}")

    async def upload(self, source: Union[str, Path], target: str) -> None:
        """Copies a local file into the payload."""
        url = await self._client.publish(source)
        try:
            await self.transfer(url, f"container:{target}")
        finally:
            await self._client.unpublish(url)

    async def download(self, source: str, target: Union[str, Path]) -> None:
        """Copies a file of the payload here."""
        url = await self._client.receive(target)
        try:
            await self.transfer(f"container:{source}", url)
        finally:
            await self._client.unpublish(url)

    async def usage(self) -> Dict[str, float]:
        """Seconds it has lived and used the CPU; empty until the provider has measured."""
        counters = (await self._client.api.usage(self._activity)).get("currentUsage")
        return dict(zip(["duration_sec", "cpu_sec"], counters or []))

    async def _start(self) -> None:
        api = self._client.api
        allocation = await self._allocate()
        decorations = await api.decorations([allocation])
        package = await self._client.package(self._image)
        draft = demand(package, decorations=decorations, **self._wishes)
        async with Bargain(api, draft, self._patience) as bargain:
            self._agreement, self.provider = await bargain.agree(self._client.busy())
        self._client.took(self.provider)
        self._cleanup.push_async_callback(self._end_agreement, allocation)
        created = await api.create_activity({"agreementId": self._agreement})
        self._activity = created["activityId"]
        self._cleanup.push_async_callback(self._destroy)
        deploy: Dict[str, Any] = {}
        if self._network is not None:
            self._ip = await self._network.admit(self.provider)
            self._cleanup.push_async_callback(self._network.dismiss, self._ip)
            deploy["net"] = [await self._network.deployment(self._ip)]
        if self._hostname:
            deploy["hostname"] = self._hostname
        await self._exec([{"deploy": deploy}, {"start": {}}], "the deployment")

    async def _allocate(self) -> str:
        made = await self._client.api.allocate(
            {"totalAmount": "1", "paymentPlatform": PLATFORM, "makeDeposit": False}
        )
        allocation = made["allocationId"]

        async def release() -> None:
            with suppress(ApiError):
                await self._client.api.release_allocation(allocation)

        self._cleanup.push_async_callback(release)
        return allocation

    async def _end_agreement(self, allocation: str) -> None:
        self._client.left(self.provider)
        with suppress(ApiError):
            await self._client.api.terminate(self._agreement, {"message": "Finished"})
        with suppress(ApiError):
            await settle(self._client.api, self._agreement, allocation)

    async def _destroy(self) -> None:
        with suppress(ApiError):
            await self._client.api.destroy_activity(self._activity)

    async def _exec(self, script: List[Dict[str, Any]], what: str) -> List[ResultRow]:
        """Runs a script to its end; the results of its commands."""
        if not self._activity:
            raise RentalEnded("the rental has not begun: use `async with`")
        api = self._client.api
        try:
            batch = await api.run_script(self._activity, {"text": json.dumps(script)})
            while True:
                results = await api.results(self._activity, batch, timeout=10)
                if results and results[-1]["isBatchFinished"]:
                    break
                await asyncio.sleep(0)
        except ApiError as error:
            if error.status in (404, 410):
                raise RentalEnded(f"{what}: {error.message}") from error
            raise
        last = results[-1]
        if last["result"] != "Ok":
            message = f"{what} failed: {last.get('message') or 'no reason given'}"
            raise CommandFailed(message, last.get("stdout") or "", last.get("stderr") or "")
        return results
