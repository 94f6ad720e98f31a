"""The daemon, and what it can be asked for."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, AsyncIterator, List, Optional, Union

from .api import Api, NodeStatus, Offer
from .errors import ApiError, GolemVpnError
from .http import Http, settings
from .network import Network
from .rental import Rental


@asynccontextmanager
async def connect(
    url: Optional[str] = None, app_key: Optional[str] = None
) -> AsyncIterator["Client"]:
    """The daemon at `url`, else where the environment or the `gvpn` command says."""
    http = Http(*settings(url, app_key))
    try:
        client = Client(http)
        # A wrong key or address is told here, not later.
        client.node_id = (await client.api.me())["identity"]
        yield client
    finally:
        await http.close()


class Client:
    """A daemon. Made by `connect`."""

    def __init__(self, http: Http):
        self.http, self.api = http, Api(http)
        #: The daemon's own node id.
        self.node_id = ""
        self._busy: "Counter[str]" = Counter()

    def network(self, prefix: str, *, name: Optional[str] = None) -> Network:
        """A new network with this prefix: `async with client.network("192.168.0.0/24") as net`."""
        return Network(self, prefix, name)

    def rent(
        self, image: Optional[str] = None, network: Optional[Network] = None, **wishes: Any
    ) -> Rental:
        """A payload of an image on some provider, in a network if one is given.

        `image` is a tag or a hash that the daemon's registry knows, or a URL. Wishes: `mem_gib`,
        `storage_gib`, `cpu_threads`, `capabilities`, `runtime`, `subnet`, `hours`, `hostname`, and
        `patience`, the seconds to wait for a provider.
        """
        return Rental(self, image, network, **wishes)

    async def status(self) -> NodeStatus:
        """What the daemon is doing."""
        return await self.api.status()

    async def offers(self) -> List[Offer]:
        """Offers that the daemon knows. It asks for them only while something is demanded."""
        return await self.api.offers()

    async def import_image(self, path: Union[str, Path], tag: Optional[str] = None) -> str:
        """Gives an image file to the daemon's registry; returns its hash."""
        image = await self.api.import_image({"path": str(Path(path).absolute()), "tag": tag})
        return image["sha3"]

    async def publish(self, path: Union[str, Path]) -> str:
        """Publishes a local file; the URL at which providers get it."""
        return (await self.api.publish_file({"path": str(Path(path).absolute())}))["url"]

    async def receive(self, path: Union[str, Path]) -> str:
        """A URL that one file can be sent to; it arrives at the local path."""
        return (await self.api.receive_file({"path": str(Path(path).absolute())}))["url"]

    async def unpublish(self, url: str) -> None:
        """Ends a publication, or a URL to send to."""
        with suppress(ApiError):
            await self.api.close_file({"url": url})

    async def package(self, image: Optional[str]) -> Optional[str]:
        """The package of an image, as a demand names it."""
        if image is None or image.startswith(("http://", "https://", "gftp://", "hash:")):
            return image
        hashed = len(image) == 56 and all(c in "0123456789abcdef" for c in image.lower())
        try:
            by = self.api.image_info
            info = await (by(hash=image) if hashed else by(tag=image))
        except ApiError as error:
            raise GolemVpnError(error.message) from error
        return f"hash:sha3:{info['sha3']}:{info['http']}"

    def busy(self) -> List[str]:
        """Providers that work for this client already."""
        return [node for node, count in self._busy.items() if count > 0]

    def took(self, node: str) -> None:
        """A provider works for this client."""
        self._busy[node] += 1

    def left(self, node: str) -> None:
        """It no longer does."""
        self._busy[node] -= 1
