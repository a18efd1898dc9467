"""The checkpoints of a plan epoch that are under way: which are owed, and what hosts have written of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hetero.cluster.control.roll_call import RollCall
from hetero.words.piece import StoredPiece
from hetero.words.spec import RunSpec

Pieces = Sequence[StoredPiece]


class SaveBook:
    """Ranks write beside their steps, and each host tells of its saves in their order, before or after it reports the
    step that they follow. `due` is the next checkpoint that is to be whole, in steps done; None if none is."""

    def __init__(self, spec: RunSpec, hosts: Sequence[str]) -> None:
        self._spec, self._hosts = spec, tuple(hosts)
        self._saves: dict[int, RollCall[Pieces]] = {}
        self.due = spec.next_save(spec.start)

    def add(self, host: str, step: int, pieces: Pieces) -> None:
        self._saves.setdefault(step, RollCall(self._hosts)).add(host, pieces)

    def take_whole(self, done: int) -> Iterator[tuple[int, Pieces]]:
        """Those of at most `done` steps that all hosts have written, with their pieces in the order of hosts."""
        while self.is_owed(done) and (save := self._saves.get(self.due or 0)) and not save.missing:
            assert self.due is not None
            del self._saves[self.due]
            yield self.due, [piece for host in self._hosts for piece in save.parts[host]]
            self.due = self._spec.next_save(self.due)

    def is_owed(self, done: int) -> bool:
        """Whether a checkpoint of at most `done` steps is not whole yet."""
        return self.due is not None and self.due <= done
