"""What a rank lets go of between two epochs, and what it says of the new one."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.rank import RankId
from hetero.engine import rank as engine_rank
from hetero.engine.rank import Rank
from hetero.words.orders import Configure, Configured, Hold, Lease
from tests.unit.hetero.cluster.specs import epoch_spec


class Held:
    """As an epoch's tensors are: reached by what they themselves reach."""

    def __init__(self) -> None:
        self.itself = self

    def settle(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.slow
def test_what_an_epoch_held_is_gone_before_the_next_is_built() -> None:
    nothing: Any = SimpleNamespace(end_epoch=lambda: None, close_epoch=lambda number: None)
    rank = Rank(RankId("n", 0), nothing, nothing)
    rank._world, rank._number = nothing, 0
    rank._epoch = held = Held()  # type: ignore[assignment]
    alive = weakref.ref(held)
    del held
    gc.disable()
    try:
        rank._end_epoch()
        assert alive() is None
    finally:
        gc.enable()


def test_what_a_person_should_know_of_its_chip_goes_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_rank, "Epoch", lambda *_: SimpleNamespace(fingerprint="f00d"))
    monkeypatch.setattr(engine_rank, "note_of", lambda *_: "a note")
    for part in ("tensor_holdings", "EpochGroups", "place_of", "claim_memory", "begin"):
        monkeypatch.setattr(engine_rank, part, lambda *_: object())
    monkeypatch.setattr(engine_rank, "Saver", lambda *_: SimpleNamespace(wait=lambda: None))
    nothing: Any = SimpleNamespace(backend=None, send_word=None)
    rank = Rank(RankId("n", 0), nothing, nothing)
    rank._world = nothing
    spec = epoch_spec(4, 2)
    assert rank._configure(Configure(spec)) == Configured(4, True, spec.text.path, "f00d", None, "a note")


def test_a_rank_without_a_lease_settles_before_it_waits_for_its_agent() -> None:
    told: list[str] = []

    def hear(timeout_s: float | None) -> tuple[str, list[int]]:
        told.append(f"listens for {timeout_s}")
        if timeout_s is None:
            return "an order", []
        raise TimeoutError

    rank = Rank(RankId("n", 0), SimpleNamespace(recv_word=hear), None)  # type: ignore[arg-type]
    rank._epoch = SimpleNamespace(next_step=1, settle=lambda: told.append("settles"))  # type: ignore[assignment]
    rank._until = 2
    assert rank._next_word() is None
    assert told == ["listens for 0.0"]
    rank._until = 1
    assert rank._next_word() == ("an order", [])
    assert told[1:] == ["listens for 0.0", "settles", "listens for None"]


def test_a_held_rank_runs_no_step_more_whatever_its_lease_says() -> None:
    told: list[str] = []
    epoch = SimpleNamespace(next_step=3, hold=False, held=False, take_events=list)
    epoch.spec = SimpleNamespace(saves_at=lambda done: False)

    def run_step() -> str:
        epoch.next_step, epoch.held = epoch.next_step + 1, epoch.hold
        return f"step {epoch.next_step}"

    epoch.run_step = run_step
    rank = Rank(RankId("n", 0), SimpleNamespace(send_word=told.append), None)  # type: ignore[arg-type]
    rank._epoch, rank._number = epoch, 7
    rank._obey(Lease(7, 20), [])
    rank._obey(Hold(6), [])
    rank._train()
    assert not epoch.held, "that was of another epoch"
    rank._obey(Hold(7), [])
    rank._train()
    rank._obey(Lease(7, 30), [])
    assert rank._until == epoch.next_step == 5
