"""What a dialler shows before it is given a connection, and who may have one.

Credentials hold once: they name the dialler and count its dials, under a code (HMAC-SHA256) that only it and the
endpoint that it dials can make. So a listener knows a peer before it keeps anything of it, and who has overheard
credentials has learnt nothing.
"""

from __future__ import annotations

import hmac
import threading

from bridge.transports.transport import Credentials
from bridge.trust.identity import SECRET_BYTES, derive

_PURPOSE = b"hetero bridge dial"
_WINDOW = 1024  # dials may overtake each other by so many


class Admission:
    """What one endpoint shows to its peers, and asks of them: the claim is the number of the dial and who dials, the
    proof its code. `admits` may be called by any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._peers: dict[str, _Acquaintance] = {}

    def meet(self, peer: str, secret: bytes) -> None:
        """From now on the peer is whoever shares this secret with us."""
        known = self._peers.get(peer)
        if known is None or known.secret != secret:
            self._peers[peer] = _Acquaintance(secret)

    def credentials(self, peer: str) -> Credentials:
        """For one dial."""
        known = self._peers[peer]
        known.dials += 1
        claim = f"{known.dials} {self._name}"
        return Credentials(claim, known.proof(claim))

    def admits(self, claim: str, proof: str) -> bool:
        """Whether a peer shows this, for the first time."""
        number, _, name = claim.partition(" ")
        known = self._peers.get(name)
        if known is None or not hmac.compare_digest(known.proof(claim).encode(), proof.encode()):
            return False
        return known.is_fresh(int(number))


class _Acquaintance:
    """A peer: how often we have dialled it, and which of its dials we have seen, as bits below the last."""

    def __init__(self, secret: bytes) -> None:
        self.secret, self.dials = secret, 0
        self._key = derive(secret, _PURPOSE, b"", SECRET_BYTES)
        self._last = self._seen = 0
        self._lock = threading.Lock()

    def proof(self, claim: str) -> str:
        return hmac.new(self._key, claim.encode(), "sha256").hexdigest()

    def is_fresh(self, number: int) -> bool:
        with self._lock:
            if number > self._last:
                self._seen = 1 if number - self._last >= _WINDOW else self._seen << (number - self._last) | 1
                self._seen &= (1 << _WINDOW) - 1
                self._last = number
                return True
            bit = 1 << self._last - number
            fresh = self._last - number < _WINDOW and not self._seen & bit
            self._seen |= bit if fresh else 0
            return fresh
