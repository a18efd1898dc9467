"""Which micro-batch of which stage is computed again when, and what crosses for that."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import torch

from backends.cpu import CpuBackend
from bridge.rank import RankId
from hetero.engine.shadow.cargo import BATCH, TurnCargo
from hetero.engine.shadow.shadow import Shadow
from hetero.engine.shadow.turn import ShadowTurn, turn_of
from hetero.engine.step.meter import Meter
from hetero.models.unit import LOSS
from hetero.transfer.waits import Waits
from hetero.words.options import ShadowOptions
from hetero.words.spec import RunSpec, TextRun
from tests.distributed.cases import Case, a2, case_of, find, k1, n2, pipeline
from tests.distributed.fleet import POOLS, SEQ_LEN

TEXT = TextRun(path="", fingerprint="", seq_len=SEQ_LEN, vocab=257)


def _spec(case: Case, pool: str, every: int = 1, packs: bool = False) -> RunSpec:
    train = case.job.train.model_copy(update={"shadow": ShadowOptions(every=every, pool=pool)})
    text = TEXT.model_copy(update={"packs": packs})
    plan, steps = case.job.complete(case.plan), train.steps
    return RunSpec(epoch=0, model=case.job.dimensions, train=train, text=text, plan=plan, pools=POOLS, steps=steps)


def _turn(spec: RunSpec, step: int) -> ShadowTurn:
    turn = turn_of(spec, step)
    assert turn is not None
    return turn


def _names(spec: RunSpec, step: int) -> dict[int, list[str]]:
    """By unit, without its tensors."""
    cargo = TurnCargo(spec, _turn(spec, step)).by_unit()
    return {unit: [one.name for one in cargoes if not one.on_chip] for unit, cargoes in cargo}


def test_after_every_so_many_steps_stages_of_other_pools_take_turns() -> None:
    case = case_of("two", pipeline(4, n2(0, 3), a2(3, 6), micro_batch=2), pipeline(2, k1(0, 6)))
    spec = _spec(case, "ascend", every=3)
    turns = [turn_of(spec, step) for step in range(15)]
    assert [step for step, turn in enumerate(turns) if turn] == [2, 5, 8, 11, 14]
    told = [(one.place.pipeline, one.place.stage, one.pool, one.micro_batch) for one in turns if one]
    assert told == [(0, 0, "nvidia", 0), (1, 0, "kunlun", 0), (0, 0, "nvidia", 1), (1, 0, "kunlun", 1),
                    (0, 0, "nvidia", 0)]  # fmt: skip
    assert {one.rank for one in turns if one} == {RankId("ascend", 0)}


def test_none_where_a_plan_has_stages_of_the_pool_alone_or_none_of_it() -> None:
    assert turn_of(_spec(case_of("its own", pipeline(2, a2(0, 6))), "ascend"), 0) is None
    assert turn_of(_spec(case_of("others", pipeline(2, n2(0, 6))), "ascend"), 0) is None
    case = case_of("both", pipeline(2, n2(0, 3), a2(3, 6)))
    spec = _spec(case, "ascend")
    assert turn_of(spec, 0) is not None
    assert turn_of(spec.model_copy(update={"train": case.job.train}), 0) is None


def test_each_unit_comes_with_what_it_gave_and_a_chunk_with_what_it_was_given() -> None:
    spec = _spec(case_of("three", pipeline(2, k1(0, 2), a2(2, 4), n2(4, 6))), "ascend")
    assert _names(spec, 0) == {0: [BATCH, "stream 1", "gradient 1"], 1: ["stream 2", "gradient 2"]}
    assert _names(spec, 1) == {4: [BATCH, "stream 4", "gradient 4", "stream 5", "gradient 5"], 5: [LOSS]}
    middle = _spec(case_of("middle", pipeline(2, a2(0, 2), n2(2, 4), a2(4, 6))), "ascend")
    assert _names(middle, 0)[2] == ["stream 2", "gradient 2", "stream 3", "gradient 3"], "it reads no text"
    packed = _spec(case_of("packed", pipeline(2, a2(0, 2), n2(2, 4), a2(4, 6))), "ascend", packs=True)
    assert _names(packed, 0)[2][0] == BATCH


def test_no_gradient_comes_of_what_nothing_before_trains() -> None:
    """The embedding and both units of the first layer are frozen."""
    spec = _spec(find("the first stage frozen, and the head"), "kunlun")
    assert _names(spec, 0) == {0: [BATCH, "stream 1"], 1: ["stream 2"], 2: ["stream 3"]}
    assert _names(spec, 1)[3] == [BATCH, "stream 3", "gradient 3", "stream 4", "gradient 4"]


def test_every_element_of_a_tensor_comes_once_from_whoever_has_it() -> None:
    spec = _spec(find("experts split, spread, and spread over rows"), "kunlun")
    for step in range(2):
        for _, cargoes in TurnCargo(spec, _turn(spec, step)).by_unit():
            for one in cargoes:
                count = torch.zeros(one.shape, dtype=torch.int64)
                for piece in one.pieces:
                    assert piece.target == RankId("kunlun", 0)
                    count[tuple(slice(*bounds) for bounds in piece.target_slices)] += 1
                assert (count == 1).all(), one.name


def test_who_waits_for_it_has_that_as_nobody_s_fault() -> None:
    """A rank that neither hands over nor computes, and is told at last."""
    spec = _spec(case_of("both", pipeline(2, k1(0, 2), n2(2, 4), a2(4, 6))), "ascend")
    meter = Meter(CpuBackend(), Waits(CpuBackend()))

    def told(mine: torch.Tensor) -> torch.Tensor:
        watch = meter.waits.start()
        time.sleep(0.01)
        watch.stop()
        meter.waits.book([watch])
        return mine

    nothing: Any = None
    totals: Any = SimpleNamespace(sum=told)
    shadow = Shadow(spec, RankId("nvidia", 0), nothing, CpuBackend(), nothing, totals, meter)
    meter.begin(traced=True)
    with shadow.watching(0, nothing):
        pass
    shadow.run(1.0)
    spent = meter.spent(0, 0)
    assert (spent.bridge_wait_s, spent.bubble_s) == (0.0, 0.0)
    assert [(label, took >= 0.01) for label, _, took in meter.spans() or ()] == [("wait shadow", True)]
    assert shadow.found is not None
