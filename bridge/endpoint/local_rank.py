"""A rank of this host as its endpoint knows it: the pipe to its port, and its ends of channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice

from bridge.endpoint.channel_end import ChannelEnd
from bridge.errors import BridgeError, PipeClosed
from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.system.linux import hand_over
from bridge.system.loop import Loop
from bridge.words.endpoint import Failed
from bridge.words.error import ErrorReport
from bridge.words.port import ChannelReport
from bridge.words.word import Word

MOST_WORD_BYTES = 1 << 16  # of what a rank says; the longest word tells of a channel
_WORDS_PER_TURN = 64  # then others get their turn


class LocalRank:
    """Takes over `fd`, the other end of the rank's port. All calls come in the loop's thread.

    ends    by channel
    on_word what the rank says, with descriptors, which are closed afterwards but for those that were taken out
    on_gone the rank has closed its port or died; or, with the error, says what makes no sense, and is to be closed
    """

    def __init__(
        self,
        rank: RankId,
        fd: int,
        loop: Loop,
        on_word: Callable[[LocalRank, Word, list[int]], object],
        on_gone: Callable[[LocalRank, BridgeError | None], object],
    ) -> None:
        self.rank, self._loop, self._take, self._on_gone = rank, loop, partial(on_word, self), on_gone
        self.ends: dict[int, ChannelEnd] = {}
        self.closed_epoch = -1
        self._pipe = Pipe.from_fd(fd, MOST_WORD_BYTES)
        self._congested = self._closed = False
        loop.watch(self._pipe.fileno(), self._turn)

    def report(self, word: ChannelReport | Failed) -> None:
        """Never blocks: a rank reads only while it waits. What it has not read is as much as its own slots hold: a word
        for each message in them, and one for each part."""
        try:
            self._pipe.offer_word(word)
            self._watch()
        except PipeClosed:
            pass  # reading says so too, and is where it is dealt with

    def refuse(self, error: BridgeError) -> None:
        """Tells the rank why it is not served any more, as far as it reads that, and closes."""
        self.report(Failed(ErrorReport.of(error)))
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.unwatch(self._pipe.fileno())
            self._pipe.close()

    def _turn(self) -> None:
        if self._closed:
            return
        try:
            for word, fds in islice(self._pipe.drain(), _WORDS_PER_TURN):
                hand_over(word, fds, self._take)
            self._watch()
            if self._pipe.pending():  # and so nothing that the loop would see
                self._loop.call_soon(self._turn)
        except PipeClosed:
            self._on_gone(self, None)
        except BridgeError as error:
            self._on_gone(self, error)

    def _watch(self) -> None:
        congested = not self._pipe.flush()
        if congested != self._congested:
            self._congested = congested
            self._loop.watch(self._pipe.fileno(), self._turn, writable=congested)
