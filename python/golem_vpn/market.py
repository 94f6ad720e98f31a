"""From a wish to an agreement."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .errors import ApiError, NoProvider
from .http import Http

PLATFORM = "erc20-holesky-tglm"


def demand(
    package: Optional[str],
    *,
    runtime: str,
    capabilities: Sequence[str],
    mem_gib: float,
    storage_gib: float,
    cpu_threads: int,
    subnet: str,
    hours: float,
    decorations: Dict[str, Any],
) -> Dict[str, Any]:
    """A demand, in the words of the market."""
    expires = datetime.now(timezone.utc) + timedelta(hours=hours)
    properties: Dict[str, Any] = {
        "golem.srv.comp.expiration": int(expires.timestamp() * 1000),
        "golem.srv.caps.multi-activity": True,
        "golem.node.debug.subnet": subnet,
        "golem.com.payment.chosen-platform": PLATFORM,
    }
    properties.update({p["key"]: p["value"] for p in decorations["properties"]})
    if package:
        properties["golem.srv.comp.task_package"] = package
        properties["golem.srv.comp.vm.package_format"] = "gvmkit-squash"
    wishes = [
        f"(golem.runtime.name={runtime})",
        f"(golem.node.debug.subnet={subnet})",
        f"(golem.inf.mem.gib>={mem_gib})",
        f"(golem.inf.storage.gib>={storage_gib})",
        f"(golem.inf.cpu.threads>={cpu_threads})",
        *[f"(golem.runtime.capabilities={c})" for c in capabilities],
        *decorations["constraints"],
    ]
    return {"properties": properties, "constraints": f"(&{''.join(wishes)})"}


class Bargain:
    """A demand on the market, until its `async with` ends."""

    def __init__(self, http: Http, draft: Dict[str, Any], patience: float):
        self._http, self._draft = http, draft
        self._deadline = time.monotonic() + patience
        self._path = ""

    async def __aenter__(self) -> "Bargain":
        demand_id = await self._http.ask("POST", "/market-api/v1/demands", self._draft)
        self._id = demand_id
        self._path = f"/market-api/v1/demands/{demand_id}"
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ApiError):
            await self._http.ask("DELETE", self._path)

    async def agree(self, avoid: Sequence[str]) -> Tuple[str, str]:
        """An agreement that a provider has approved, and the provider's id. Providers to avoid are
        taken only if nobody else comes."""
        later: List[str] = []
        refusals: List[str] = []
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise NoProvider(await self._why(refusals))
            timeout = min(5.0, left, 1.0 if later else 5.0)
            events = await self._http.ask("GET", f"{self._path}/events?timeout={timeout:.2f}&maxEvents=10")
            if not events and later:
                await self._answer(later.pop(0))
            for event in events:
                if event["eventType"] != "ProposalEvent":
                    refusals.append((event.get("reason") or {}).get("message", "no reason given"))
                    continue
                proposal = event["proposal"]
                if proposal["state"] == "Initial":
                    if proposal["issuerId"] in avoid:
                        later.append(proposal["proposalId"])
                    else:
                        await self._answer(proposal["proposalId"])
                    continue
                try:
                    return await self._sign(proposal["proposalId"]), proposal["issuerId"]
                except ApiError as error:
                    refusals.append(error.message)

    async def _answer(self, proposal: str) -> None:
        # The offer may be gone meanwhile, or answered by another.
        with suppress(ApiError):
            await self._http.ask("POST", f"{self._path}/proposals/{proposal}", self._draft)

    async def _sign(self, proposal: str) -> str:
        valid_to = datetime.now(timezone.utc) + timedelta(minutes=10)
        body = {"proposalId": proposal, "validTo": valid_to.isoformat()}
        agreement = await self._http.ask("POST", "/market-api/v1/agreements", body)
        path = f"/market-api/v1/agreements/{agreement}"
        await self._http.ask("POST", f"{path}/confirm")
        await self._http.ask("POST", f"{path}/wait?timeout=30")
        return str(agreement)

    async def _why(self, refusals: List[str]) -> str:
        report = await self._http.ask("GET", f"/gvpn/v1/market/demands/{self._id}/report")
        text = f"no provider took the work: {report['summary']}"
        if refusals:
            text += f"; providers that were asked said: {'; '.join(sorted(set(refusals)))}"
        return text


async def settle(http: Http, agreement: str, allocation: str, patience: float = 30.0) -> None:
    """Waits for the agreement's invoice and accepts it."""
    deadline = time.monotonic() + patience
    after = ""
    while (left := deadline - time.monotonic()) > 0:
        query = f"timeout={min(5.0, left):.2f}{after}"
        for event in await http.ask("GET", f"/payment-api/v1/invoiceEvents?{query}"):
            after = f"&afterTimestamp={event['eventDate']}"
            path = f"/payment-api/v1/invoices/{event['invoiceId']}"
            invoice = await http.ask("GET", path)
            if invoice["agreementId"] != agreement:
                continue
            acceptance = {"totalAmountAccepted": invoice["amount"], "allocationId": allocation}
            await http.ask("POST", f"{path}/accept", acceptance)
            return
        await asyncio.sleep(0)
