"""A unit computed again: what it is found to differ by, and what that takes of a chip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backends.cpu import CpuBackend
from balancer.memory.shadow import shadow_bytes, shadow_place
from hetero.engine.expected import workload_of
from hetero.engine.shadow.again import UnitErrors, UnitsAgain
from hetero.engine.shadow.cargo import BATCH, gradient_before, stream_before
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.models.batch import Batch
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.models.unit import LOSS, STREAM
from hetero.models.unit_module import build_unit
from hetero.words.options import ShadowOptions
from hetero.words.spec import RunSpec, TextRun
from tests.distributed.cases import Case, a1, case_of, n1, pipeline
from tests.distributed.fleet import POOLS

LENGTH, SAMPLES, UNITS = 64, 2, 6
VOCAB = 4096
"""Enough for embedding and head to be the largest."""
Stage = dict[int, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]


def _case(unit: int = 0, vocab: int = 257) -> Case:
    """ "ascend" computes that unit alone again."""
    others = [a1(*units) for units in ((0, unit), (unit + 1, UNITS)) if units[0] < units[1]]
    stages = sorted([*others, n1(unit, unit + 1)], key=lambda stage: stage.units)
    sizes = {"hidden": 64, "ffn": 170, "vocab": vocab}
    made = case_of("two", pipeline(SAMPLES, *stages, micro_batch=SAMPLES), **sizes)
    train = made.job.train.model_copy(update={"shadow": ShadowOptions(every=1, pool="ascend")})
    return replace(made, job=replace(made.job, train=train))


def _spec(case: Case) -> RunSpec:
    text = TextRun(path=str(Path()), fingerprint="", seq_len=LENGTH, vocab=257)
    plan = case.job.complete(case.plan)
    return RunSpec(epoch=0, model=case.job.dimensions, train=case.job.train, text=text, plan=plan, pools=POOLS, steps=1)


def _computed(model: Dimensions, dtype: torch.dtype = torch.float32) -> Stage:
    """Of each unit its tensors, and what comes of it: a forward and a backward through all of them."""
    torch.manual_seed(0)
    builder, told = Builder(TensorGroup(), CpuBackend().operators, dtype, seed=1), architecture(model)
    units = [build_unit(model, number, builder) for number in range(len(told.units))]
    tokens_BT = torch.randint(257, (SAMPLES, LENGTH))
    batch = Batch(tokens_BT, tokens_BT)
    streams: list[torch.Tensor] = []
    for unit in units:
        made = unit({STREAM: streams[-1]} if streams else {}, batch)
        streams.append(made.get(STREAM, made.get(LOSS)))
        streams[-1].retain_grad()
    streams[-1].backward()
    found: Stage = {}
    for number, unit in enumerate(units):
        came = {BATCH: torch.stack([tokens_BT.flatten()] * 2)} if number == 0 else {}
        if number < len(units) - 1:
            came[stream_before(number + 1)] = streams[number].detach().flatten(0, 1)
            came[gradient_before(number + 1)] = streams[number].grad.flatten(0, 1)  # type: ignore[union-attr]
        else:
            came[LOSS] = streams[number].detach().view(1, 1)
        found[number] = {one.name: one.parameter.detach() for one in unit.tensors()}, came
    return found


def _again(spec: RunSpec, precision: str = "float32", coarser: str = "float32") -> UnitsAgain:
    return UnitsAgain(spec, (SAMPLES, LENGTH), precision, coarser, CpuBackend(), 1.0, lambda unit: {})


def _errors(stage: Stage, *precisions: str) -> list[UnitErrors]:
    again = _again(_spec(_case()), *precisions)
    return [again.compare(unit, *told) for unit, told in stage.items()]


def test_what_one_process_has_computed_is_found_to_the_bit() -> None:
    model: Any = _case().job.dimensions
    found = _errors(_computed(model))
    assert [(one.value, one.gradient) for one in found] == [(0.0, None)] + [(0.0, 0.0)] * 5


def test_a_fault_is_found_in_its_unit_alone_by_what_the_unit_adds() -> None:
    """A hundredth of what an MLP adds."""
    model: Any = _case().job.dimensions
    stage = _computed(model)
    tensors, came = stage[2]
    passed, whole = stage[1][1][stream_before(2)], came[stream_before(3)]
    share = float((whole - passed).norm() / whole.norm())
    wrong = passed + 1.01 * (whole - passed)
    came[stream_before(3)] = wrong
    errors = _errors(stage)
    assert [one.unit for one in errors if one.value > 1e-5] == [2, 3], "unit 3 is given what unit 2 did not give"
    floor = torch.finfo(torch.float32).eps / 1e-5
    assert errors[2].value == pytest.approx(0.01 * share / 1.01 / (share + floor), rel=0.05)
    assert tensors.keys() == {"units.2.norm.weight", "units.2.gate.weight", "units.2.up.weight", "units.2.down.weight"}


def test_other_precisions_differ_by_less_than_the_coarser_ones_limit() -> None:
    model: Any = _case().job.dimensions
    for dtype, own in ((torch.float32, "bfloat16"), (torch.bfloat16, "float32")):
        assert 1e-4 < max(one.worst for one in _errors(_computed(model, dtype), own, "bfloat16")) < 1e-2


@pytest.mark.parametrize("unit", range(UNITS))
def test_a_chip_holds_no_more_than_is_counted(unit: int) -> None:
    """What lies in host memory here lies beside a chip there, but for the two that are copied to it."""
    case = _case(unit, vocab=VOCAB)
    spec = _spec(case)
    again, stage = _again(spec), _computed(case.job.dimensions)
    for before in range(unit):
        again.compare(before, *stage[before])
    tensors, came = stage[unit]
    known = {name: x for before in range(unit + 1) for name, x in stage[before][1].items()}
    with LiveBytes("cpu") as live:
        for name in (stream_before(unit), gradient_before(unit + 1)):
            live.count(known.get(name, torch.empty(0)))
        again.compare(unit, {name: one.clone() for name, one in tensors.items()}, came)
    place = shadow_place(spec.plan, "ascend")
    assert place is not None
    counted = shadow_bytes(workload_of(spec), spec.plan, place, 0)
    assert live.peak <= counted <= 2 * live.peak, (live.peak, counted)
