"""One end of a channel in the endpoint: what sending and receiving have in common."""

from __future__ import annotations

from collections.abc import Callable, Container

from bridge.errors import BridgeError
from bridge.link.link import Link
from bridge.port.slots import SlotRing
from bridge.words.channel import ChannelSpec
from bridge.words.error import ErrorReport
from bridge.words.frame import Frame, FrameKind, Header, text_frame
from bridge.words.port import Broken, ChannelReport, Post, Send
from bridge.words.word import refused


class ChannelEnd:
    """Talks to its rank by `report` and to the other end by `link`. Once broken it does neither."""

    def __init__(self, spec: ChannelSpec, ring: SlotRing, link: Link, report: Callable[[ChannelReport], None]) -> None:
        self.spec, self.ring, self.link, self.report = spec, ring, link, report
        self.broken = False

    def send_notice(self, kind: FrameKind, sequence: int = 0) -> None:
        """Sends a frame without payload."""
        self.link.send_frame(Frame(Header(kind, self.spec.epoch, self.spec.id, sequence)))

    def send_text(self, kind: FrameKind, text: str) -> None:
        """Sends a frame of text: why this channel is over."""
        self.link.send_frame(text_frame(kind, text, self.spec.epoch, self.spec.id))

    def fail(self, error: BridgeError) -> None:
        """Breaks this end: every ticket of the rank on this channel raises `error`, and whatever comes is dropped."""
        if not self.broken:
            self.broken = True
            self.report(Broken(self.spec.id, ErrorReport.of(error)))

    def expect_free(self, word: Post | Send, busy: Container[int]) -> None:
        """Raises WordError unless a word's slot is one of this channel that is not under way."""
        if not 0 <= word.slot < self.spec.slots or word.slot in busy:
            raise refused(word, "slot", f"{self.spec} has {self.spec.slots} slots, and this is none or under way")

    def close(self) -> None:
        """Forgets the channel without a word."""
        self.broken = True
        self.ring.close()
