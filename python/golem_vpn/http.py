"""Requests to the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple
from urllib.parse import urlencode

import aiohttp

from .errors import ApiError, Unreachable

DEFAULT_URL = "http://127.0.0.1:7465"
#: How long a daemon may be away, such as while it is started anew, before requests fail.
PATIENCE = 15.0


def settings(url: Optional[str], app_key: Optional[str]) -> Tuple[str, str]:
    """Where the daemon is and the key for it: as given, from the environment, or as the `gvpn`
    command finds them."""
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    home = Path(os.environ.get("GVPN_DATA_DIR") or Path(data) / "gvpn")

    def kept(name: str) -> Optional[str]:
        try:
            return (home / name).read_text().strip() or None
        except OSError:
            return None

    env = os.environ.get
    found = url or env("GVPN_API_URL") or env("YAGNA_API_URL") or kept("api.url") or DEFAULT_URL
    key = app_key or env("GVPN_APPKEY") or env("YAGNA_APPKEY") or kept("appkey")
    if not key:
        raise Unreachable(
            "no app key: set GVPN_APPKEY or YAGNA_APPKEY, or start `gvpn daemon` as this user"
        )
    return found.rstrip("/"), key


class Http:
    """A connection to one daemon."""

    def __init__(self, url: str, app_key: str):
        self.url = url
        self._answered = False
        # Long polls and transfers end when the daemon says so.
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {app_key}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask(
        self, method: str, path: str, body: Any = None, query: Optional[Mapping[str, Any]] = None
    ) -> Any:
        """One request; the JSON of the answer, `None` if it has none. What is `None` in the query
        is left out."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        if given:
            path += "?" + urlencode(given, doseq=True)
        status, text = await self._exchange(method, path, body)
        try:
            answer = json.loads(text) if text.strip() else None
        except ValueError:
            answer = text
        if status >= 400:
            if isinstance(answer, dict) and "message" in answer:
                raise ApiError(status, str(answer["message"]))
            raise ApiError(status, text)
        return answer

    async def _exchange(self, method: str, path: str, body: Any) -> Tuple[int, str]:
        """A status and a body. What the daemon has not seen, and what changes nothing, is tried
        again while a daemon that has answered before is away."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        deadline = time.monotonic() + (PATIENCE if self._answered else 0.0)
        while True:
            try:
                async with self._session.request(
                    method, self.url + path, data=data, headers=headers
                ) as response:
                    text = await response.text()
                    self._answered = True
                    return response.status, text
            except aiohttp.ClientError as error:
                harmless = method == "GET" or isinstance(error, aiohttp.ClientConnectorError)
                if not harmless or time.monotonic() > deadline:
                    message = f"the daemon at {self.url} does not answer: {error}"
                    raise Unreachable(message) from error
                await asyncio.sleep(0.2)

    async def socket(self, path: str) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket. A refusal is an error here, with the daemon's reason."""
        try:
            return await self._session.ws_connect(self.url + path, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            # aiohttp does not keep the body of a refused handshake.
            message = {
                404: "nothing is there",
                502: "the connection was refused: does the payload listen there, and not only on localhost?",
                504: "no answer from that address",
            }.get(error.status, error.message)
            raise ApiError(error.status, message) from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"the daemon at {self.url} does not answer: {error}") from error
