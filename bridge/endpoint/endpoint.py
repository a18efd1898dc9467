"""The endpoint: the one process of a pool and host that talks to other hosts. `python -m bridge.endpoint --fd N`.

Its agent drives it by the words of `bridge/words/endpoint.py`, over a control pipe at descriptor N, ranks through their
ports. It imports neither torch nor Ray and ends at once when the control pipe closes.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace

from bridge.endpoint.peers import Peers
from bridge.endpoint.router import Router
from bridge.errors import BridgeError, PipeClosed
from bridge.link.link import Link
from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.system.linux import hand_over
from bridge.system.loop import Loop
from bridge.words.endpoint import (
    AskStats,
    Attach,
    Attached,
    Failed,
    Introduce,
    Listen,
    Listening,
    ProbeLink,
    Stats,
    Stop,
)
from bridge.words.error import ErrorReport
from bridge.words.word import Word, refused, unexpected

PATIENCE_S = 10.0


class Endpoint:
    """Owns the control pipe. `run` may be called in a thread of its own; nothing else may be called then.

    patience_s  how long a peer may be silent before it is lost; one whose process dies is lost within milliseconds
    at_eof      called when the control pipe closes; the default ends `run`
    """

    def __init__(
        self, control: Pipe, *, patience_s: float = PATIENCE_S, at_eof: Callable[[], object] | None = None
    ) -> None:
        self._control = control
        self._loop = Loop()
        self._router = Router(self._loop, self._link_to, self._report)
        self._peers = Peers(self._loop, self._router, self._report, patience_s)
        self._at_eof = at_eof or self._loop.stop
        self._loop.watch(control.fileno(), self._turn)

    def run(self) -> None:
        """Serves until told to stop or the control pipe closes. What breaks it is reported, then raised."""
        try:
            self._loop.run()
        except Exception as error:
            self._report(Failed(_fault(error)))
            raise
        finally:
            self._peers.close()
            self._router.close()
            self._loop.close()
            self._control.close()

    def _turn(self) -> None:
        """What makes no sense is reported, and survived."""
        while True:
            try:
                for word, fds in self._control.drain():
                    hand_over(word, fds, self._obey)
                return
            except PipeClosed:
                self._at_eof()
                return
            except BridgeError as error:
                self._report(Failed(ErrorReport.of(error)))

    def _obey(self, word: Word, fds: list[int]) -> None:
        match word:
            case Listen(endpoint=endpoint, host=host, schemes=schemes):
                self._report(Listening(self._peers.listen(endpoint, host, schemes), self._peers.identity.public))
            case Attach(rank=rank):
                if not fds:
                    raise refused(word, "rank", "the descriptor of its port comes with it")
                self._router.attach(rank, fds.pop(0))
                self._report(Attached(rank))
            case Introduce():
                self._peers.introduce(word)
            case AskStats():
                self._report(Stats(self._peers.stats()))
            case ProbeLink(peer=peer, nbytes=nbytes):
                self._peers.probe(peer, nbytes)
            case Stop():
                self._loop.stop()
            case _:
                raise unexpected(word)

    def _link_to(self, rank: RankId) -> Link | None:
        return self._peers.link_to(rank, local=rank in self._router)

    def _report(self, word: Word) -> None:
        try:
            self._control.send_word(word)
        except PipeClosed:
            self._at_eof()


def _fault(error: Exception) -> ErrorReport:
    """An error that explains itself is told as it is; any other is a fault of this program."""
    trace = traceback.format_exc()
    if isinstance(error, BridgeError):
        return ErrorReport.of(error, trace)
    told = BridgeError("endpoint", repr(error), "a fault of this program", "please report it")
    return replace(ErrorReport.of(told, trace), type=type(error).__name__)
