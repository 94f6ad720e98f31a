"""Private networks for payloads on Golem: create a network, rent, deploy, forward a port."""

from .client import Client, connect
from .errors import (
    ApiError,
    CommandFailed,
    GolemVpnError,
    NoProvider,
    RentalEnded,
    Unreachable,
)
from .network import Member, Network
from .rental import Output, Rental

__all__ = [
    "ApiError",
    "Client",
    "CommandFailed",
    "GolemVpnError",
    "Member",
    "Network",
    "NoProvider",
    "Output",
    "Rental",
    "RentalEnded",
    "Unreachable",
    "connect",
]
