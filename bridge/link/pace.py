"""An emulated link: the network of a real cluster, played over a fast local one."""

from __future__ import annotations


class LinkPace:
    """One direction of a link. Frames occupy it one after another and arrive `delay_s` after they have left it."""

    def __init__(self, bytes_per_s: float, delay_s: float) -> None:
        self.bytes_per_s, self.delay_s = bytes_per_s, delay_s
        self.free_at = 0.0

    def arrival(self, nbytes: int, now: float) -> float:
        """When a frame of `nbytes` that is handed over `now` arrives; the times never decrease."""
        self.free_at = max(self.free_at, now) + nbytes / self.bytes_per_s
        return self.free_at + self.delay_s
