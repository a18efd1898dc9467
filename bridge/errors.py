"""What can go wrong between two hosts. Every error names a key, the value found, the rule it breaks and a remedy."""

from __future__ import annotations

from typing import Any


class BridgeError(Exception):
    """Base of all errors of this package; `hetero` renders any exception that carries these four attributes."""

    def __init__(self, key: str, value: Any = None, rule: str = "", remedy: str = "") -> None:
        self.key, self.value, self.rule, self.remedy = key, value, rule, remedy
        super().__init__(key, value, rule, remedy)  # keeps the exception picklable

    def __str__(self) -> str:
        found = f" = {self.value}" if self.value is not None else ""
        return "; ".join(part for part in (f"{self.key}{found}", self.rule, self.remedy) if part)


class PeerLost(BridgeError):
    """The process at the other end of a channel is gone, or its host cannot be reached."""


class BridgeTimeout(BridgeError):
    """A transfer did not complete within the deadline of its waiter. The transfer itself goes on."""


class WireError(BridgeError):
    """Bytes that are no frame of this format: wrong magic, version or checksum, or a frame out of order."""


class EpochClosed(BridgeError):
    """A transfer of a plan epoch that has been closed."""


class TransportError(BridgeError):
    """A scheme that is not registered, or an address that cannot be bound or reached."""


class PipeClosed(BridgeError):
    """The process at the other end of a local pipe has closed it or has died."""


class WordError(BridgeError):
    """What another process says is no word of this release, or makes no sense there."""


class ReleaseDiffers(BridgeError):
    """The process at the other end of a local pipe is of another release."""
