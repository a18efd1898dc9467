"""What a host knows of each of its ranks, and what all of them together have answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from bridge.errors import PipeClosed
from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.system.awake import AwakeClock
from bridge.words.endpoint import Stop
from bridge.words.word import Answer, Word, unexpected
from hetero.cluster.control.roll_call import RollCall
from hetero.cluster.fleet import Patience
from hetero.words.orders import Configured, Hold, Lease, RankOrder, Ready, Saved
from hetero.words.spec import RunSpec
from hetero.words.step import StepReport

Said = TypeVar("Said", Ready, Answer)
OfStep = TypeVar("OfStep", StepReport, Saved)
Heard = TypeVar("Heard", bound=Word)


@dataclass
class Member:
    """One rank. `owes` is what it was asked for, if any; `next_step` the step it has yet to report, `next_save` of how
    many steps it has yet to write a piece."""

    rank: RankId
    pipe: Pipe
    pid: int = 0
    owes: type[Word] | None = Ready
    active: bool = True
    next_step: int = 0
    next_save: int | None = None
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
        return not self.gone and (self.owes is not None or self.due_step is not None or self.due_save is not None)

    @property
    def due_step(self) -> int | None:
        """What it is to report next; None of one that has no step to run."""
        return self.next_step if self.active and self.next_step < self.leased else None

    @property
    def due_save(self) -> int | None:
        """The save that it has begun, as far as its steps are reported."""
        if not self.active or self.next_save is None or self.next_save > self.next_step:
            return None
        return self.next_save

    @property
    def debt(self) -> str:
        """In words, what should come from it."""
        if self.owes:
            return f"owes {self.owes.__name__!r}"
        if self.due_step is None and self.due_save is not None:
            return f"has not written what it saves after {self.due_save} steps"
        return f"has not finished step {self.next_step}"

    def patience_s(self, patience: Patience) -> float:
        """How long it may be silent now."""
        return patience.start_s if self.owes is Ready else patience.rank_s


class Roster:
    """The ranks of a host. Each question is gathered until all ranks that were asked have answered.

    A rank speaks for itself, of what is due from it; whatever else it says raises WordError."""

    def __init__(self, clock: AwakeClock) -> None:
        self._clock = clock
        self._spec: RunSpec | None = None
        self.members: dict[RankId, Member] = {}
        self._roll_calls: dict[tuple[type[Word], int], RollCall[Word]] = {}

    @property
    def epoch(self) -> int:
        """-1 before the first."""
        return -1 if self._spec is None else self._spec.epoch

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    def member(self, rank: RankId, word: Word) -> Member:
        """Of whom the word speaks."""
        if rank not in self.members:
            raise unexpected(word, f"there is no rank {rank} on this host")
        return self.members[rank]

    @property
    def active(self) -> list[Member]:
        """Those that have a place in the plan of this epoch."""
        return [member for member in self.members.values() if member.active]

    def ask(
        self, order: RankOrder[Any], of: Callable[[Member], bool] = lambda _: True, fds: Sequence[int] = ()
    ) -> None:
        """Sends an order, and descriptors with it, to the ranks that `of` selects."""
        asked = [member for member in self.members.values() if of(member) and not member.gone]
        self._roll_calls[order.answer, 0] = RollCall(str(member.rank) for member in asked)
        for member in asked:
            member.owes = order.answer
            self.heard(member)
            member.pipe.send_word(order, fds)

    def expect(self) -> None:
        """Awaits that all ranks are ready, which nobody has to ask for."""
        self._roll_calls[Ready, 0] = RollCall(str(rank) for rank in self.members)
        for member in self.members.values():
            self.heard(member)

    def heard(self, member: Member) -> None:
        """A sign of life; or nothing was expected until now."""
        member.heard = self._clock.now()

    def answered(self, member: Member, answer: Said) -> list[Said] | None:
        """All answers, in rank order, once this was the last."""
        if member.owes is not type(answer):
            raise unexpected(answer, "nobody asked for it")
        if isinstance(answer, Configured):
            _agree(answer, f"epoch {answer.epoch}", f"epoch {self.epoch}")
            member.active = answer.active
        member.owes = None
        return self._add(0, member, answer)

    def stepped(self, member: Member, report: StepReport) -> list[StepReport] | None:
        """The step reports of all active ranks once the last is in."""
        _agree(report, _step(report.rank, report.epoch, report.step), _step(member.rank, self.epoch, member.due_step))
        member.next_step += 1
        return self._per_step(member, report)

    def saved(self, member: Member, saved: Saved) -> list[Saved] | None:
        """All that was saved after a step. A rank may be through before it reports the step, or steps later."""
        assert self._spec is not None
        soonest = member.next_save if member.next_save == member.next_step + 1 else member.due_save
        _agree(saved, _save(member.rank, self.epoch, saved.step), _save(member.rank, self.epoch, soonest))
        member.next_save = self._spec.next_save(saved.step)
        if saved.piece is not None:
            _agree(saved, f"a piece of {saved.piece.rank}", f"a piece of {member.rank}")
        return self._per_step(member, saved)

    def lease(self, lease: Lease) -> None:
        for member in self.active:
            if not member.expected:
                self.heard(member)
            member.leased = lease.until
            member.pipe.send_word(lease)

    def hold(self, hold: Hold) -> None:
        """One rank tells all others, also those of other hosts."""
        for member in self.active[:1]:
            member.pipe.send_word(hold)

    def begin_epoch(self, spec: RunSpec) -> None:
        """Forgets half-gathered steps of the old epoch."""
        self._spec = spec
        self._roll_calls.clear()
        for member in self.members.values():
            member.next_step = member.leased = spec.start
            member.next_save = spec.next_save(spec.start)
            member.active = True

    def dismiss(self) -> None:
        """Asks all ranks to end."""
        for member in self.members.values():
            member.owes = None
            try:
                member.pipe.send_word(Stop())
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

    def _per_step(self, member: Member, word: OfStep) -> list[OfStep] | None:
        key = (type(word), word.step)
        if key not in self._roll_calls:
            self._roll_calls[key] = RollCall(str(one.rank) for one in self.active)
        return self._add(word.step, member, word)

    def _add(self, step: int, member: Member, word: Heard) -> list[Heard] | None:
        roll_call = cast("RollCall[Heard] | None", self._roll_calls.get((type(word), step)))
        if roll_call is None or not roll_call.add(str(member.rank), word):
            return None
        del self._roll_calls[type(word), step]
        return [roll_call.parts[str(rank)] for rank in self.members if str(rank) in roll_call.parts]


def _step(rank: RankId, epoch: int, step: int | None) -> str:
    return f"step {step} of epoch {epoch} of {rank}"


def _save(rank: RankId, epoch: int, step: int | None) -> str:
    return f"the save after {step} steps of epoch {epoch} of {rank}"


def _agree(word: Word, said: str, due: str) -> None:
    if said != due:
        raise unexpected(word, f"it tells of {said}, where {due} was due")
