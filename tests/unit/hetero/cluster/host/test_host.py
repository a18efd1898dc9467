"""What a host makes of the words of its processes, which a script says here."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest

from bridge.errors import PipeClosed
from bridge.port.pipe import Pipe
from bridge.rank import RankId
from bridge.words.endpoint import Introduce, Introduced, LinkProbed
from bridge.words.word import Word
from hetero.cluster.control import events as ev
from hetero.cluster.fleet import FleetSpec
from hetero.cluster.host import processes
from hetero.cluster.host.host import Host
from hetero.cluster.host.processes import Helper
from hetero.cluster.host.roster import Member
from hetero.words.fork_server import Exited
from hetero.words.notices import ChipWaits
from hetero.words.orders import Calibrated, Configure, Configured, Hold, Lease, Ready, Saved
from hetero.words.piece import StoredPiece
from hetero.words.step import StepReport
from tests.unit.hetero.cluster.fleets import pool
from tests.unit.hetero.cluster.specs import epoch_spec
from tests.unit.hetero.monitoring.reports import rank_report

A, B = RankId("pool", 0), RankId("pool", 1)


class ScriptedHost(Host):
    """Two ranks without processes, ready for the steps 3 to 5 of epoch 7."""

    def __init__(self) -> None:
        super().__init__(FleetSpec((pool("pool", "cpu", 2),)).hosts[0])
        self.theirs: list[Pipe] = []
        for rank in (A, B):
            ours, theirs = Pipe.pair()
            self.theirs.append(theirs)
            self._roster.members[rank] = Member(rank, ours)
        self._crew.endpoint = Helper("endpoint", "nobody", [], self.spec, {})
        self._roster.expect()
        self.hear(A, Ready())
        self.hear(B, Ready())
        self.handle(Configure(epoch_spec(7, 3, save_every=4)))
        self.hear(A, Configured(7))
        self.hear(B, Configured(7))
        self.handle(Lease(7, 6))

    def hear(self, speaker: RankId | None, *words: Word) -> list[ev.Event]:
        """What comes of it that a rank says so, or the endpoint."""
        who = self._crew.endpoint if speaker is None else self._roster.members[speaker]
        self._crew.listen = lambda _: [(who, word) for word in words]  # type: ignore[method-assign]
        return self.poll(0.0)

    def close(self) -> None:
        for pipe in (*self.theirs, *(member.pipe for member in self._roster), self._crew.endpoint.pipe):
            pipe.close()
        super().close()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedHost]:
    monkeypatch.setattr(processes.subprocess, "Popen", lambda *_, **__: types.SimpleNamespace(pid=17))
    host = ScriptedHost()
    yield host
    host.close()


def step(rank: RankId, number: int = 3, epoch: int = 7) -> StepReport:
    return rank_report(rank.pool, rank.index, step=number, epoch=epoch)


def piece_of(rank: RankId) -> StoredPiece:
    return StoredPiece(rank=str(rank), file="f", size_bytes=8, checksum="5e", tensors={})


def test_a_step_that_all_have_finished_is_one_report(host: ScriptedHost) -> None:
    assert host.hear(A, Saved(4, None), step(A)) == []
    piece = piece_of(B)
    saved, stepped = host.hear(B, Saved(4, piece), step(B))
    assert saved == ev.PiecesSaved("pool@0", 4, [piece])
    assert isinstance(stepped, ev.StepReported)
    assert (stepped.report.step, stepped.report.ranks) == (3, 2)


def test_a_piece_may_be_whole_before_its_step_is_reported_or_steps_later(host: ScriptedHost) -> None:
    stepped, _ = host.hear(A, *(step(A, number) for number in (3, 4))), host.hear(A, Saved(4, piece_of(A)))
    assert stepped == []
    *steps, saved = host.hear(B, *(step(B, number) for number in (3, 4, 5)), Saved(4, None))
    assert [one.report.step for one in steps] == [3, 4]
    assert saved == ev.PiecesSaved("pool@0", 4, [piece_of(A)])


def test_who_has_run_its_steps_and_still_writes_is_expected_to_speak(host: ScriptedHost) -> None:
    host.hear(A, *(step(A, number) for number in (3, 4, 5)))
    member = host._roster.members[A]
    assert member.expected
    assert member.debt == "has not written what it saves after 4 steps"
    host.hear(A, Saved(4, None))
    assert not member.expected


def test_one_rank_hears_that_the_epoch_is_to_be_held_and_no_step_after_it_is_expected(host: ScriptedHost) -> None:
    for pipe in host.theirs:
        while not isinstance(pipe.recv_word(1.0)[0], Lease):
            pass
    host.handle(Hold(7))
    assert host.theirs[0].recv_word(1.0)[0] == Hold(7)
    with pytest.raises(TimeoutError):
        host.theirs[1].recv_word(0.0)
    host.hear(A, step(A), Saved(4, None))
    host.hear(B, step(B), Saved(4, None))
    assert host._roster.members[A].expected
    host.handle(Lease(7, 4))
    assert not any(member.expected for member in host._roster)


def test_what_a_rank_tells_is_of_the_step_that_it_is_in(host: ScriptedHost) -> None:
    waits = ChipWaits("world", 0, (1,), 31.0)
    host.hear(A, step(A))
    assert host.hear(A, waits) == [ev.RankNoticed("pool@0", A, waits, 4, 7)]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([step(B)], "tells of step 3 of epoch 7 of pool:1, where step 3 of epoch 7 of pool:0 was due"),
        ([step(A, 4)], "tells of step 4 of epoch 7 of pool:0, where step 3 "),
        ([step(A), step(A)], "tells of step 3 of epoch 7 of pool:0, where step 4 "),
        ([step(A, epoch=6)], "tells of step 3 of epoch 6 of pool:0, where step 3 of epoch 7 "),
        ([*(step(A, number) for number in range(3, 7))], "tells of step 6 of epoch 7 of pool:0, where step None "),
        ([Saved(5, None)], "tells of the save after 5 steps of epoch 7 of pool:0, where the save after 4 steps "),
        ([Saved(4, None), Saved(4, None)], "tells of the save after 4 steps of epoch 7 of pool:0, where "),
        ([Saved(4, None), Saved(8, None)], "tells of the save after 8 steps of epoch 7 of pool:0, where "),
        ([Saved(4, piece_of(B))], "tells of a piece of pool:1, where a piece of pool:0 "),
        ([Calibrated(())], "nobody asked for it"),
        ([Configured(7)], "nobody asked for it"),
        ([Ready()], "nobody asked for it"),
    ],
    ids=[
        "another rank's",
        "too early",
        "twice",
        "old epoch",
        "not leased",
        "saved",
        "saved twice",
        "saved too early",
        "another rank's piece",
        "answer",
        "second answer",
        "ready",
    ],
)
def test_a_rank_that_tells_of_what_is_not_its_own_or_not_due_is_blamed(
    host: ScriptedHost, words: list[Word], why: str
) -> None:
    (trouble,) = host.hear(A, *words)
    assert isinstance(trouble, ev.Trouble)
    assert (trouble.process, trouble.rank, trouble.severity) == ("rank", A, ev.Severity.OWN_ERROR)
    assert why in trouble.cause


def test_an_answer_of_another_epoch_is_none(host: ScriptedHost) -> None:
    host.handle(Configure(epoch_spec(8, 3)))
    (trouble,) = host.hear(B, Configured(7))
    assert isinstance(trouble, ev.Trouble)
    assert (trouble.rank, "tells of epoch 7, where epoch 8 was due" in trouble.cause) == (B, True)


def test_an_endpoint_answers_what_it_was_asked_once(host: ScriptedHost) -> None:
    with pytest.raises(PipeClosed):
        host._crew.endpoint.ask(Introduce({}))  # nobody is there to hear it
    answer = Introduced()
    assert host.hear(None, answer) == [ev.Answered("pool@0", (answer,))]
    for unasked in (answer, LinkProbed("b@0", 1.0, None, 1.0), Exited(RankId("pool", 9), 0)):
        (trouble,) = host.hear(None, unasked)
        assert isinstance(trouble, ev.Trouble)
        assert (trouble.process, trouble.rank) == ("endpoint", None)
        assert ("nobody asked for it" in trouble.cause) or ("there is no rank pool:9" in trouble.cause)
