"""What can go wrong."""

from __future__ import annotations


class GolemVpnError(Exception):
    """Anything that this package raises of its own."""


class Unreachable(GolemVpnError):
    """The daemon does not answer."""


class ApiError(GolemVpnError):
    """The daemon refuses a request."""

    def __init__(self, status: int, message: str):
        super().__init__(f"{message} (status {status})")
        #: The HTTP status.
        self.status = status
        #: What the daemon says.
        self.message = message


class NoProvider(GolemVpnError):
    """Nobody took the work. The message says which wish excludes how many offers."""


class RentalEnded(GolemVpnError):
    """The agreement or the activity is over."""


class CommandFailed(GolemVpnError):
    """A command in the payload failed."""

    def __init__(self, message: str, stdout: str, stderr: str):
        detail = stderr.strip() or stdout.strip()
        super().__init__(f"{message}: {detail}" if detail else message)
        #: What it wrote before it failed.
        self.stdout = stdout
        #: What it complained about.
        self.stderr = stderr
