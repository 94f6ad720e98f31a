"""The calls of the daemon's API that this package makes. Written by `generate.py` from the daemon's
OpenAPI document; not to be changed by hand."""

from __future__ import annotations

from typing import Any, Dict, List, Literal, Optional, TypedDict, Union, cast
from urllib.parse import quote

from .http import Http


class Me(TypedDict):
    identity: str
    name: str
    role: str


class PortMappingOff(TypedDict):
    state: Literal["off"]


class PortMappingAsking(TypedDict):
    state: Literal["asking"]


class PortMappingMapped(TypedDict):
    addr: str
    protocol: str
    state: Literal["mapped"]


class PortMappingNone(TypedDict):
    reason: str
    state: Literal["none"]


class ProviderPolicy(TypedDict, total=False):
    cpu_cores: float
    image_dirs: List[str]
    max_activities: int
    mem_gib: float
    requestors: Optional[List[str]]
    runtimes: List[str]
    storage_gib: float


class RelayStateRtt(TypedDict):
    nanos: int
    secs: int


class _RelayState(TypedDict):
    addr: str
    stream: bool


class RelayState(_RelayState, total=False):
    reason: Optional[str]
    rtt: Optional[RelayStateRtt]


class _NodeStatus(TypedDict):
    listen: List[str]
    memberships: int
    nat: Literal["unknown", "none", "present", "endpoint-independent", "address-dependent"]
    networks: int
    nodeId: str
    portMapping: Union[PortMappingOff, PortMappingAsking, PortMappingMapped, PortMappingNone]
    relays: List[RelayState]
    requested: int
    running: int
    sessions: int
    version: str


class NodeStatus(_NodeStatus, total=False):
    filtering: Literal["unknown", "blocked", "endpoint-independent", "address-dependent", "address-and-port-dependent", "port-independent"]
    provider: Optional[ProviderPolicy]
    public: Optional[str]


class _Offer(TypedDict):
    offerId: str
    properties: Dict[str, Any]
    providerId: str
    timestamp: str


class Offer(_Offer, total=False):
    constraints: str


class _ExcludedBy(TypedDict):
    alone: int
    clause: str
    of: Literal["Requestor", "Provider"]
    offers: int


class ExcludedBy(_ExcludedBy, total=False):
    example: Optional[str]


class MatchReport(TypedDict):
    excluded: List[ExcludedBy]
    matching: int
    offers: int
    summary: str


class _NewImage(TypedDict):
    path: str


class NewImage(_NewImage, total=False):
    tag: Optional[str]


class Image(TypedDict):
    imported: str
    sha3: str
    size: int
    tags: List[str]
    url: str


class ImageInfo(TypedDict):
    http: str
    https: str
    sha3: str
    size: int


class LocalFile(TypedDict):
    path: str


class FileUrl(TypedDict):
    url: str


class _NewNetwork(TypedDict):
    ip: str


class NewNetwork(_NewNetwork, total=False):
    gateway: Optional[str]
    mask: Optional[str]


class Network(TypedDict):
    gateway: str
    id: str
    ip: str
    mask: str


class Selector(TypedDict):
    prefix: str


class PortRange(TypedDict):
    first: int
    last: int


class Protocol(TypedDict):
    number: int


Rule = TypedDict("Rule", {"action": "Literal[\"allow\", \"deny\"]", "from": "Union[Literal[\"any\"], Selector]", "id": "int", "ports": "List[PortRange]", "protocol": "Union[Literal[\"any\"], Literal[\"tcp\"], Literal[\"udp\"], Literal[\"icmp\"], Protocol]", "to": "Union[Literal[\"any\"], Selector]"}, total=False)


class Policy(TypedDict, total=False):
    default: Literal["allow", "deny"]
    dns: bool
    dnsForward: bool
    multicast: bool
    multicastPacketsPerSecond: int
    rules: List[Rule]


class Route(TypedDict):
    destination: str
    via: int


class SettingsEdit(TypedDict, total=False):
    hosts: Optional[Dict[str, Any]]
    mtu: Optional[int]
    name: Optional[str]
    policy: Optional[Policy]
    routes: Optional[List[Route]]


class _NetworkInfo(TypedDict):
    epoch: int
    gateways: List[str]
    hash: str
    id: str
    members: int
    mtu: int
    owner: str
    prefixes: List[str]


class NetworkInfo(_NetworkInfo, total=False):
    name: Optional[str]


class NodeAddress(TypedDict):
    id: str
    ip: str


class Limit(TypedDict, total=False):
    bitsPerSecond: int
    packetsPerSecond: int


class _Service(TypedDict):
    name: str
    port: int


class Service(_Service, total=False):
    udp: bool


class _Member(TypedDict):
    groups: List[str]
    id: int
    ips: List[str]
    limit: Limit
    node: str
    quarantined: bool
    services: List[Service]


class Member(_Member, total=False):
    activity: Optional[str]
    name: Optional[str]


class MemberEdit(TypedDict, total=False):
    activity: Optional[str]
    addIps: List[str]
    groups: Optional[List[str]]
    ips: Optional[List[str]]
    limit: Optional[Limit]
    name: Optional[str]
    node: Optional[str]
    quarantined: Optional[bool]
    removeIps: List[str]
    services: Optional[List[Service]]


class PlatformName(TypedDict, total=False):
    driver: Optional[str]
    network: Optional[str]
    token: Optional[str]


class _NewAllocation(TypedDict):
    totalAmount: str


class NewAllocation(_NewAllocation, total=False):
    address: Optional[str]
    deposit: Any
    makeDeposit: bool
    paymentPlatform: Optional[Union[str, PlatformName]]
    timeout: Optional[str]


class _Allocation(TypedDict):
    address: str
    allocationId: str
    makeDeposit: bool
    paymentPlatform: str
    remainingAmount: str
    spentAmount: str
    timestamp: str
    totalAmount: str


class Allocation(_Allocation, total=False):
    deposit: Any
    timeout: Optional[str]


class MarketProperty(TypedDict):
    key: str
    value: str


class MarketDecoration(TypedDict):
    constraints: List[str]
    properties: List[MarketProperty]


class _Draft(TypedDict):
    properties: Dict[str, Any]


class Draft(_Draft, total=False):
    constraints: str


class _Proposal(TypedDict):
    issuerId: str
    properties: Dict[str, Any]
    proposalId: str
    state: Literal["Initial", "Draft", "Rejected", "Accepted", "Expired"]
    timestamp: str


class Proposal(_Proposal, total=False):
    constraints: str
    prevProposalId: Optional[str]


class MarketEventProposalEvent(TypedDict):
    eventDate: str
    eventType: Literal["ProposalEvent"]
    proposal: Proposal


class _MarketEventProposalRejectedEvent(TypedDict):
    eventDate: str
    eventType: Literal["ProposalRejectedEvent"]
    proposalId: str


class MarketEventProposalRejectedEvent(_MarketEventProposalRejectedEvent, total=False):
    reason: Optional[Dict[str, Any]]


class _Demand(TypedDict):
    demandId: str
    properties: Dict[str, Any]
    requestorId: str
    timestamp: str


class Demand(_Demand, total=False):
    constraints: str


class _MarketAgreement(TypedDict):
    agreementId: str
    demand: Demand
    offer: Offer
    state: Literal["Proposal", "Pending", "Cancelled", "Rejected", "Approved", "Expired", "Terminated"]
    timestamp: str
    validTo: str


class MarketAgreement(_MarketAgreement, total=False):
    appSessionId: Optional[str]
    approvedDate: Optional[str]
    approvedSignature: Optional[str]
    proposedSignature: Optional[str]


class MarketEventAgreementEvent(TypedDict):
    agreement: MarketAgreement
    eventDate: str
    eventType: Literal["AgreementEvent"]


class NewAgreement(TypedDict):
    proposalId: str
    validTo: str


class NewActivity(TypedDict):
    agreementId: str


class CreatedActivity(TypedDict):
    activityId: str


class ActivityUsage(TypedDict):
    counters: Dict[str, Any]
    currentUsage: List[float]
    timestamp: int


class Script(TypedDict):
    text: str


class _ResultRow(TypedDict):
    eventDate: str
    index: int
    isBatchFinished: bool
    result: Literal["Ok", "Error"]


class ResultRow(_ResultRow, total=False):
    message: Optional[str]
    stderr: Optional[str]
    stdout: Optional[str]


class _DocumentEventRejection(TypedDict):
    rejectionReason: Literal["UNSOLICITED_SERVICE", "BAD_SERVICE", "INCORRECT_AMOUNT"]
    totalAmountAccepted: str


class DocumentEventRejection(_DocumentEventRejection, total=False):
    message: Optional[str]


class _DocumentEvent(TypedDict):
    eventDate: str
    eventType: str


class DocumentEvent(_DocumentEvent, total=False):
    debitNoteId: str
    invoiceId: str
    rejection: DocumentEventRejection


class Invoice(TypedDict):
    activityIds: List[str]
    agreementId: str
    amount: str
    invoiceId: str
    issuerId: str
    payeeAddr: str
    payerAddr: str
    paymentDueDate: str
    paymentPlatform: str
    recipientId: str
    status: Literal["ISSUED", "RECEIVED", "ACCEPTED", "REJECTED", "FAILED", "SETTLED", "CANCELLED"]
    timestamp: str


class Acceptance(TypedDict):
    allocationId: str
    totalAmountAccepted: str


class Api:
    """Calls to one daemon."""

    def __init__(self, http: Http):
        self.http = http

    async def me(self) -> Me:
        """`GET /me`"""
        return cast("Me", await self.http.ask("GET", "/me", None))

    async def status(self) -> NodeStatus:
        """`GET /gvpn/v1/status`"""
        return cast("NodeStatus", await self.http.ask("GET", "/gvpn/v1/status", None))

    async def offers(self) -> List[Offer]:
        """`GET /gvpn/v1/market/offers`"""
        return cast("List[Offer]", await self.http.ask("GET", "/gvpn/v1/market/offers", None))

    async def report(self, id: str) -> MatchReport:
        """`GET /gvpn/v1/market/demands/{id}/report`"""
        return cast("MatchReport", await self.http.ask("GET", f"/gvpn/v1/market/demands/{quote(id, safe='')}/report", None))

    async def import_image(self, body: NewImage) -> Image:
        """`POST /gvpn/v1/images`"""
        return cast("Image", await self.http.ask("POST", "/gvpn/v1/images", body))

    async def image_info(self, hash: Optional[str] = None, tag: Optional[str] = None) -> ImageInfo:
        """`GET /registry/v1/image/info`"""
        return cast("ImageInfo", await self.http.ask("GET", "/registry/v1/image/info", None, {"hash": hash, "tag": tag}))

    async def publish_file(self, body: LocalFile) -> FileUrl:
        """`POST /gvpn/v1/files`"""
        return cast("FileUrl", await self.http.ask("POST", "/gvpn/v1/files", body))

    async def receive_file(self, body: LocalFile) -> FileUrl:
        """`POST /gvpn/v1/files/receive`"""
        return cast("FileUrl", await self.http.ask("POST", "/gvpn/v1/files/receive", body))

    async def close_file(self, body: FileUrl) -> None:
        """`POST /gvpn/v1/files/close`"""
        await self.http.ask("POST", "/gvpn/v1/files/close", body)

    async def create_network(self, body: NewNetwork) -> Network:
        """`POST /net-api/v1/net`"""
        return cast("Network", await self.http.ask("POST", "/net-api/v1/net", body))

    async def remove_network(self, id: str) -> None:
        """`DELETE /net-api/v1/net/{id}`"""
        await self.http.ask("DELETE", f"/net-api/v1/net/{quote(id, safe='')}", None)

    async def edit_network(
        self,
        id: str,
        body: SettingsEdit,
        wait: Optional[float] = None,
    ) -> NetworkInfo:
        """`PATCH /gvpn/v1/net/{id}`"""
        return cast("NetworkInfo", await self.http.ask("PATCH", f"/gvpn/v1/net/{quote(id, safe='')}", body, {"wait": wait}))

    async def add_node(self, id: str, body: NodeAddress) -> None:
        """`POST /net-api/v1/net/{id}/nodes`"""
        await self.http.ask("POST", f"/net-api/v1/net/{quote(id, safe='')}/nodes", body)

    async def members(self, id: str) -> List[Member]:
        """`GET /gvpn/v1/net/{id}/members`"""
        return cast("List[Member]", await self.http.ask("GET", f"/gvpn/v1/net/{quote(id, safe='')}/members", None))

    async def edit_member(
        self,
        id: str,
        member: str,
        body: MemberEdit,
        wait: Optional[float] = None,
    ) -> Member:
        """`PATCH /gvpn/v1/net/{id}/members/{member}`"""
        return cast("Member", await self.http.ask("PATCH", f"/gvpn/v1/net/{quote(id, safe='')}/members/{quote(member, safe='')}", body, {"wait": wait}))

    async def remove_member(self, id: str, member: str) -> None:
        """`DELETE /gvpn/v1/net/{id}/members/{member}`"""
        await self.http.ask("DELETE", f"/gvpn/v1/net/{quote(id, safe='')}/members/{quote(member, safe='')}", None)

    async def allocate(self, body: NewAllocation) -> Allocation:
        """`POST /payment-api/v1/allocations`"""
        return cast("Allocation", await self.http.ask("POST", "/payment-api/v1/allocations", body))

    async def release_allocation(self, id: str) -> None:
        """`DELETE /payment-api/v1/allocations/{id}`"""
        await self.http.ask("DELETE", f"/payment-api/v1/allocations/{quote(id, safe='')}", None)

    async def decorations(self, allocationIds: List[str]) -> MarketDecoration:
        """`GET /payment-api/v1/demandDecorations`"""
        return cast("MarketDecoration", await self.http.ask("GET", "/payment-api/v1/demandDecorations", None, {"allocationIds": allocationIds}))

    async def subscribe(self, body: Draft) -> str:
        """`POST /market-api/v1/demands`"""
        return cast("str", await self.http.ask("POST", "/market-api/v1/demands", body))

    async def unsubscribe(self, id: str) -> None:
        """`DELETE /market-api/v1/demands/{id}`"""
        await self.http.ask("DELETE", f"/market-api/v1/demands/{quote(id, safe='')}", None)

    async def collect(
        self,
        id: str,
        timeout: Optional[float] = None,
        afterTimestamp: Optional[str] = None,
        maxEvents: Optional[int] = None,
        appSessionId: Optional[str] = None,
    ) -> List[Union[MarketEventProposalEvent, MarketEventProposalRejectedEvent, MarketEventAgreementEvent]]:
        """`GET /market-api/v1/demands/{id}/events`"""
        return cast("List[Union[MarketEventProposalEvent, MarketEventProposalRejectedEvent, MarketEventAgreementEvent]]", await self.http.ask("GET", f"/market-api/v1/demands/{quote(id, safe='')}/events", None, {"timeout": timeout, "afterTimestamp": afterTimestamp, "maxEvents": maxEvents, "appSessionId": appSessionId}))

    async def counter(self, id: str, proposal: str, body: Draft) -> str:
        """`POST /market-api/v1/demands/{id}/proposals/{proposal}`"""
        return cast("str", await self.http.ask("POST", f"/market-api/v1/demands/{quote(id, safe='')}/proposals/{quote(proposal, safe='')}", body))

    async def create_agreement(self, body: NewAgreement) -> str:
        """`POST /market-api/v1/agreements`"""
        return cast("str", await self.http.ask("POST", "/market-api/v1/agreements", body))

    async def confirm(
        self,
        id: str,
        timeout: Optional[float] = None,
        appSessionId: Optional[str] = None,
    ) -> None:
        """`POST /market-api/v1/agreements/{id}/confirm`"""
        await self.http.ask("POST", f"/market-api/v1/agreements/{quote(id, safe='')}/confirm", None, {"timeout": timeout, "appSessionId": appSessionId})

    async def wait_for_approval(
        self,
        id: str,
        timeout: Optional[float] = None,
        appSessionId: Optional[str] = None,
    ) -> None:
        """`POST /market-api/v1/agreements/{id}/wait`"""
        await self.http.ask("POST", f"/market-api/v1/agreements/{quote(id, safe='')}/wait", None, {"timeout": timeout, "appSessionId": appSessionId})

    async def terminate(self, id: str, body: Optional[Optional[Dict[str, Any]]] = None) -> None:
        """`POST /market-api/v1/agreements/{id}/terminate`"""
        await self.http.ask("POST", f"/market-api/v1/agreements/{quote(id, safe='')}/terminate", body)

    async def create_activity(self, body: Union[str, NewActivity]) -> CreatedActivity:
        """`POST /activity-api/v1/activity`"""
        return cast("CreatedActivity", await self.http.ask("POST", "/activity-api/v1/activity", body))

    async def destroy_activity(self, id: str) -> None:
        """`DELETE /activity-api/v1/activity/{id}`"""
        await self.http.ask("DELETE", f"/activity-api/v1/activity/{quote(id, safe='')}", None)

    async def usage(self, id: str) -> ActivityUsage:
        """`GET /activity-api/v1/activity/{id}/usage`"""
        return cast("ActivityUsage", await self.http.ask("GET", f"/activity-api/v1/activity/{quote(id, safe='')}/usage", None))

    async def run_script(self, id: str, body: Script) -> str:
        """`POST /activity-api/v1/activity/{id}/exec`"""
        return cast("str", await self.http.ask("POST", f"/activity-api/v1/activity/{quote(id, safe='')}/exec", body))

    async def results(
        self,
        id: str,
        batch: str,
        timeout: Optional[float] = None,
        commandIndex: Optional[int] = None,
    ) -> List[ResultRow]:
        """`GET /activity-api/v1/activity/{id}/exec/{batch}`"""
        return cast("List[ResultRow]", await self.http.ask("GET", f"/activity-api/v1/activity/{quote(id, safe='')}/exec/{quote(batch, safe='')}", None, {"timeout": timeout, "commandIndex": commandIndex}))

    async def invoice_events(
        self,
        timeout: Optional[float] = None,
        afterTimestamp: Optional[str] = None,
        maxEvents: Optional[int] = None,
        appSessionId: Optional[str] = None,
    ) -> List[DocumentEvent]:
        """`GET /payment-api/v1/invoiceEvents`"""
        return cast("List[DocumentEvent]", await self.http.ask("GET", "/payment-api/v1/invoiceEvents", None, {"timeout": timeout, "afterTimestamp": afterTimestamp, "maxEvents": maxEvents, "appSessionId": appSessionId}))

    async def invoice(self, id: str) -> Invoice:
        """`GET /payment-api/v1/invoices/{id}`"""
        return cast("Invoice", await self.http.ask("GET", f"/payment-api/v1/invoices/{quote(id, safe='')}", None))

    async def accept_invoice(self, id: str, body: Acceptance) -> None:
        """`POST /payment-api/v1/invoices/{id}/accept`"""
        await self.http.ask("POST", f"/payment-api/v1/invoices/{quote(id, safe='')}/accept", body)
