"""From a wish to an agreement."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .api import Acceptance, Api, Draft, MarketDecoration, NewAgreement
from .errors import ApiError, NoProvider

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
    decorations: MarketDecoration,
) -> Draft:
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

    def __init__(self, api: Api, draft: Draft, patience: float):
        self._api, self._draft = api, draft
        self._deadline = time.monotonic() + patience
        self._id = ""

    async def __aenter__(self) -> "Bargain":
        self._id = await self._api.subscribe(self._draft)
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ApiError):
            await self._api.unsubscribe(self._id)

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
            events = await self._api.collect(self._id, timeout=timeout, maxEvents=10)
            if not events and later:
                await self._answer(later.pop(0))
            for event in events:
                if event["eventType"] == "ProposalRejectedEvent":
                    reason = event.get("reason")
                    refusals.append(reason["message"] if reason else "no reason given")
                    continue
                if event["eventType"] != "ProposalEvent":
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
            await self._api.counter(self._id, proposal, self._draft)

    async def _sign(self, proposal: str) -> str:
        valid_to = datetime.now(timezone.utc) + timedelta(minutes=10)
        wanted: NewAgreement = {"proposalId": proposal, "validTo": valid_to.isoformat()}
        agreement = await self._api.create_agreement(wanted)
        await self._api.confirm(agreement)
        await self._api.wait_for_approval(agreement, timeout=30)
        return agreement

    async def _why(self, refusals: List[str]) -> str:
        report = await self._api.report(self._id)
        text = f"no provider took the work: {report['summary']}"
        if refusals:
            text += f"; providers that were asked said: {'; '.join(sorted(set(refusals)))}"
        return text


async def settle(api: Api, agreement: str, allocation: str, patience: float = 30.0) -> None:
    """Waits for the agreement's invoice and accepts it."""
    deadline = time.monotonic() + patience
    after: Optional[str] = None
    while (left := deadline - time.monotonic()) > 0:
        for event in await api.invoice_events(timeout=min(5.0, left), afterTimestamp=after):
            after = event["eventDate"]
            if "invoiceId" not in event:
                continue
            invoice = await api.invoice(event["invoiceId"])
            if invoice["agreementId"] != agreement:
                continue
            acceptance: Acceptance = {
                "totalAmountAccepted": invoice["amount"],
                "allocationId": allocation,
            }
            await api.accept_invoice(event["invoiceId"], acceptance)
            return
        await asyncio.sleep(0)
