"""What a host knows of each of its ranks, and what all of them together have answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bridge.awake import AwakeClock
from bridge.errors import PipeClosed
from bridge.pipe import Message, Pipe
from bridge.rank import RankId
from hetero.cluster.fleet import Patience
from hetero.cluster.gather import Gather


@dataclass
class Member:
    """One rank. `owes` is the report that it was asked for, if any; `next_step` the step it has yet to report."""

    rank: RankId
    pipe: Pipe
    pid: int = 0
    owes: str | None = "ready"
    active: bool = True
    next_step: int = 0
    leased: int = 0
    heard: float = 0.0
    failed: bool = False
    closed: bool = False
    status: int | None = None
    ending_since: float | None = None
    gone: bool = False

    @property
    def expected(self) -> bool:
        """Whether something should come from it."""
        return not self.gone and (self.owes is not None or (self.active and self.next_step < self.leased))

    def patience_s(self, patience: Patience) -> float:
        """How long it may be silent now."""
        return patience.start_s if self.owes == "ready" else patience.rank_s


class Roster:
    """The ranks of a host. Each question is gathered until all ranks that were asked have answered."""

    def __init__(self, clock: AwakeClock) -> None:
        self._clock = clock
        self.members: dict[RankId, Member] = {}
        self._gathers: dict[tuple[str, int], Gather[Message]] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    @property
    def active(self) -> list[Member]:
        """Those that have a place in the plan of this epoch."""
        return [member for member in self.members.values() if member.active]

    def ask(
        self, message: Message, answer: str, of: Callable[[Member], bool] = lambda _: True, fds: Sequence[int] = ()
    ) -> None:
        """Sends a question, and descriptors with it, to the ranks that `of` selects."""
        asked = [member for member in self.members.values() if of(member) and not member.gone]
        self._gathers[answer, 0] = Gather(str(member.rank) for member in asked)
        for member in asked:
            member.owes = answer
            self.heard(member)
            member.pipe.send(message, fds)

    def expect(self, answer: str) -> None:
        """Awaits a report of all ranks that nobody has to ask for."""
        self._gathers[answer, 0] = Gather(str(rank) for rank in self.members)
        for member in self.members.values():
            self.heard(member)

    def heard(self, member: Member) -> None:
        """A sign of life; or nothing was expected until now."""
        member.heard = self._clock.now()

    def answered(self, member: Member, message: Message) -> list[Message] | None:
        """All answers, in rank order, once this was the last."""
        if member.owes == message["report"]:
            member.owes = None
        return self._add((message["report"], 0), member, message)

    def stepped(self, member: Member, message: Message) -> list[Message] | None:
        """The step reports of all active ranks once the last is in."""
        member.next_step = message["step"] + 1
        return self._per_step(member, message)

    def saved(self, member: Member, message: Message) -> list[Message] | None:
        return self._per_step(member, message)

    def lease(self, epoch: int, until: int) -> None:
        for member in self.active:
            if not member.expected:
                self.heard(member)
            member.leased = until
            member.pipe.send({"do": "lease", "epoch": epoch, "until": until})

    def begin_epoch(self, start: int) -> None:
        """Forgets half-gathered steps of the old epoch; its last checkpoint may still be on its way."""
        self._gathers = {key: gather for key, gather in self._gathers.items() if key[0] == "saved"}
        for member in self.members.values():
            member.next_step = member.leased = start
            member.active = True

    def dismiss(self) -> None:
        """Asks all ranks to end."""
        for member in self.members.values():
            member.owes = None
            try:
                member.pipe.send({"do": "stop"})
            except PipeClosed:
                continue

    def silent(self, patience: Patience) -> list[Member]:
        """Ranks that should have said something by now."""
        now = self._clock.now()
        return [
            member
            for member in self.members.values()
            if member.expected and now - member.heard > member.patience_s(patience)
        ]

    def _per_step(self, member: Member, message: Message) -> list[Message] | None:
        key = (message["report"], message["step"])
        if key not in self._gathers:
            self._gathers[key] = Gather(str(one.rank) for one in self.active)
        return self._add(key, member, message)

    def _add(self, key: tuple[str, int], member: Member, message: Message) -> list[Message] | None:
        gather = self._gathers.get(key)
        if gather is None or not gather.add(str(member.rank), message):
            return None
        del self._gathers[key]
        return [gather.parts[str(rank)] for rank in self.members if str(rank) in gather.parts]
