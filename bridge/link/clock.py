"""How far a peer's wall clock is ahead of ours, from the times of ping and pong."""

from __future__ import annotations


class PeerClock:
    """Believes the fastest ping so far, and no difference that its round trip leaves in doubt."""

    def __init__(self) -> None:
        self._round_trip_ns: int | None = None
        self.ahead_ns = 0

    @property
    def round_trip_s(self) -> float | None:
        """The fastest there was."""
        return None if self._round_trip_ns is None else self._round_trip_ns / 1e9

    def sample(self, asked_ns: int, heard_ns: int, answered_ns: int, back_ns: int) -> None:
        """One ping: asked and back by our clock, heard and answered by the peer's."""
        round_trip = (back_ns - asked_ns) - (answered_ns - heard_ns)
        if self._round_trip_ns is not None and round_trip >= self._round_trip_ns:
            return
        self._round_trip_ns = round_trip
        ahead = ((heard_ns - asked_ns) + (answered_ns - back_ns)) // 2
        self.ahead_ns = ahead if abs(ahead) > round_trip else 0

    def elapsed_s(self, sent_ns: int, arrived_ns: int) -> float:
        """Seconds from `sent_ns` by the peer's clock to `arrived_ns` by ours; never negative."""
        return max(0, arrived_ns - sent_ns + self.ahead_ns) / 1e9
