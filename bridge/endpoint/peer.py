"""Another endpoint, as this one knows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from bridge.link.link import Link

_REDIAL_S = (0.01, 1.0)  # pauses between attempts double from the first to the second


@dataclass(eq=False)
class Peer:
    """What `introduce` has said of it, and how dialling it goes.

    key      the public half of its key pair
    secret   what we share with it, and nobody else
    sealed   whether frames are encrypted
    needed   the link is to be connected, and to stay so: a rank here or there wants it
    lost     instances of the endpoint that are not talked to any more
    """

    link: Link
    uri: str | None
    key: str
    secret: bytes
    sealed: bool
    needed: bool = False
    lost: set[str] = field(default_factory=set)
    _pause_s: float = _REDIAL_S[0]

    @property
    def name(self) -> str:
        return self.link.peer

    def next_pause_s(self) -> float:
        """How long to wait before it is dialled again."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _REDIAL_S[1])
        return pause_s

    def reached(self) -> None:
        """It answers: the next pause is the shortest again."""
        self._pause_s = _REDIAL_S[0]
