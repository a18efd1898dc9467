"""Backwards in two actions, I and W, beside whole ones: what an executor makes of lists that are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import pytest
import torch

from backends.cpu import CpuBackend
from balancer.memory import memory
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.schedule.action import STEP, Action, Actions, Kind
from bridge.rank import RankId
from hetero.engine.expected import ChipPace
from hetero.engine.step.executor import Executor
from hetero.engine.step.meter import Meter
from hetero.engine.step.stage import DTYPES, RankPlace, Stage
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.layers.weight_gradients import ProductPair, WeightGradients
from hetero.models.batch import Batch
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.transfer.waits import Waits
from tests.unit.hetero.models.whole_model import build, logical_tensors

CHUNKS = ((0, 3), (3, 6))
MICRO_BATCHES, LENGTH = 3, 8
DIMENSIONS = Dimensions(layers=2, hidden=16, heads=4, kv_heads=2, ffn=20, vocab=50, qkv_bias=True)
TIED = DIMENSIONS.model_copy(update={"tie_embeddings": True})
TEXT = torch.randint(50, (MICRO_BATCHES, 2, LENGTH + 1), generator=torch.Generator().manual_seed(4))

LISTS = {
    "W at once": "F0 I0 W0 F1 I1 W1 F2 I2 W2",
    "W one later": "F0 I0 F1 I1 W0 F2 I2 W1 W2",
    "all W at the end": "F0 F1 I0 F2 I1 I2 W0 W1 W2",
    "some whole": "F0 F1 I0 F2 B1 W0 I2 W2",
}
WHOLE = "F0 B0 F1 B1 F2 B2"
REAL = ChipPace()
"""Chips take their time by themselves."""


def _actions(written: str) -> Actions:
    """Of two chunks on one stage, whose backwards go the other way. The last of a chunk is followed by its SYNC."""
    found: list[Action] = []
    for kind, m in ((Kind(one[0]), int(one[1:])) for one in written.split()):
        found += [Action(kind, chunk, m) for chunk in ((0, 1) if kind is Kind.F else (1, 0))]
    for chunk in (0, 1):
        last = max(at for at, action in enumerate(found) if action.chunk == chunk)
        found.insert(last + 1, Action(Kind.SYNC, chunk, -1))
    return (*found, STEP)


class Trained:
    """A model on one stage, with the gradients that a list of actions makes of it, and what was told of them."""

    def __init__(
        self,
        written: str,
        precision: str = "float32",
        dims: Dimensions = DIMENSIONS,
        pace: ChipPace = REAL,
    ) -> None:
        backend, dtype = CpuBackend(), DTYPES[precision]
        me = RankId("a", 0)
        plan = StagePlan(pool="a", units=CHUNKS, chips=(0,), owns=((0, 6),), precision=precision)
        values = {name: tensor.parameter.detach() for name, tensor in logical_tensors(build(dims, dtype=dtype)).items()}
        pipeline = PipelinePlan(share=2 * MICRO_BATCHES, micro_batch=2, stages=(plan,))
        self.plan = Plan(pipelines=(pipeline,))
        place = RankPlace(0, 0, 0, (me,), plan.axes)
        self.stage = Stage(dims, self.plan, place, TensorGroup(), backend, precision, values)
        told = Meter(backend, Waits(backend)), pace
        self.executor = Executor(self.stage.chunks, _actions(written), {}, ["x_BTD"], (2, LENGTH), dtype, *told)
        self.told: list[tuple[int, list[str]]] = []
        self.early: dict[int, dict[str, torch.Tensor]] = {}
        """By chunk: all gradients as they are when the chunk's last unit is told of."""
        self.looks = True

    def step(self) -> dict[str, torch.Tensor]:
        self.executor.run(lambda m: Batch(TEXT[m, :, :-1], TEXT[m, :, 1:]), self._sync)
        return self._gradients()

    def _sync(self, chunk: int, names: Iterable[str]) -> None:
        self.told.append((chunk, sorted(names)))
        if self.looks and chunk not in self.early:
            self.early[chunk] = self._gradients()

    def _gradients(self) -> dict[str, torch.Tensor]:
        return {name: g.clone() for name, g in self.stage.gradients(self.stage.parameters).items()}


@cache
def _whole(precision: str, dims: Dimensions) -> dict[str, torch.Tensor]:
    return Trained(WHOLE, precision, dims).step()


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("written", LISTS.values(), ids=LISTS)
def test_gradients_are_those_of_whole_backwards(written: str, precision: str) -> None:
    """To the bit, where sums are made in one order: that of micro-batches."""
    _check(Trained(written, precision, TIED).step(), _whole(precision, TIED), exactly="B" not in written)


def test_without_tied_weights_and_in_a_second_step() -> None:
    wanted, halves = _whole("float32", DIMENSIONS), Trained(LISTS["all W at the end"])
    for _ in range(2):
        _check(halves.step(), wanted)
        halves.stage.clear()


def _check(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], exactly: bool = True) -> None:
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        if exactly:
            assert torch.equal(gradient, wanted[name]), name
        torch.testing.assert_close(gradient, wanted[name])


@pytest.mark.parametrize("written", [WHOLE, *LISTS.values()], ids=["whole", *LISTS])
def test_units_are_handed_over_one_by_one_with_their_gradients_made(written: str) -> None:
    """In the midst of the last W as in that of the last B; a unit's, and then all of the chunk's."""
    trained = Trained(written)
    whole = trained.step()
    told = {chunk: [names for one, names in trained.told if one == chunk] for chunk in (0, 1)}
    for chunk, names in told.items():
        units = trained.stage.chunks[chunk].parameters_of
        assert names == [*(sorted(units[unit]) for unit in reversed(units)), sorted(trained.stage.chunks[chunk].names)]
        last, before = units[max(units)], units[max(units) - 1]
        then = trained.early[chunk]
        assert all(torch.equal(then[name], whole[name]) for name in last)
        assert not any(torch.equal(then[name], whole[name]) for name in before if whole[name].dim() > 1)


@pytest.mark.parametrize("written", [WHOLE, LISTS["all W at the end"]], ids=["whole", "in two"])
def test_an_emulated_chip_hands_over_each_unit_at_its_time(written: str) -> None:
    """Once all is computed; what comes near the end waits for SYNC."""
    kind, units = Kind(written.split()[-1][0]), [range(*chunk) for chunk in CHUNKS]
    parts = {(kind, chunk, unit): (held.stop - unit) / 3 for chunk, held in enumerate(units) for unit in held}
    trained = Trained(written, pace=ChipPace(laps=parts))
    whole = trained.step()
    for chunk in (0, 1):
        held, then = trained.stage.chunks[chunk], trained.early[chunk]
        units = [sorted(held.parameters_of[unit]) for unit in reversed(held.parameters_of)]
        assert [names for one, names in trained.told if one == chunk] == [*units[:2], sorted(held.names)]
        assert all(torch.equal(then[name], whole[name]) for name in held.names)


def _dropped(honest: Callable[[WeightGradients, ProductPair], None]) -> Callable[[WeightGradients, ProductPair], None]:
    left = [5]

    def make(self: WeightGradients, pair: ProductPair) -> None:
        left[0] -= 1
        if left[0]:
            honest(self, pair)

    return make


def _twice(honest: Callable[[WeightGradients, ProductPair], None]) -> Callable[[WeightGradients, ProductPair], None]:
    left = [5]

    def make(self: WeightGradients, pair: ProductPair) -> None:
        left[0] -= 1
        for _ in range(1 if left[0] else 2):
            honest(self, pair)

    return make


@pytest.mark.parametrize("fault", [_dropped, _twice])
def test_a_weight_gradient_dropped_or_made_twice_is_seen(fault: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = _whole("float32", DIMENSIONS)
    monkeypatch.setattr(WeightGradients, "make", fault(WeightGradients.make))
    found = Trained(LISTS["W one later"]).step()
    wrong = [name for name in wanted if not torch.allclose(found[name], wanted[name])]
    assert len(wrong) == 1
    assert wrong[0].endswith(".weight")


def test_what_an_input_gradient_leaves_is_what_weight_gradients_are_made_of() -> None:
    """Nothing else of a micro-batch is there any more; W lets go of that too. (Sums of narrow gradients stand.)"""
    trained = Trained(LISTS["W one later"], "bfloat16")
    trained.step()
    trained.looks = False
    executor, counted = trained.executor, []
    honest = dict(executor._does)

    def look(action: Action) -> None:
        honest[action.kind](action)
        if action.kind in (Kind.I, Kind.W) and action.chunk == 0:
            kept = [tensor for pairs in executor._pairs.values() for one in pairs for tensor in one[1:3]]
            held = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in kept}
            assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in kept), "parts of something"
            counted.append((str(action), live.now - _bytes(executor.loss), sum(held.values())))

    executor._does = dict.fromkeys(honest, look)
    with LiveBytes() as live:
        trained.step()
    assert [action for action, *_ in counted] == ["I0", "I1", "W0", "I2", "W1", "W2"]
    one = counted[0][2]
    assert one > 0
    assert [(live, kept) for _, live, kept in counted] == [(n * one, n * one) for n in (1, 2, 1, 2, 1, 0)]


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
@pytest.mark.parametrize(
    "written",
    [pytest.param(WHOLE, id="whole", marks=pytest.mark.slow), pytest.param(LISTS["W one later"], id="in two")],
)
def test_a_chip_is_as_full_as_predicted_where_units_without_pairs_are_large(
    written: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients of head's and embedding's weights are made by the first action, and wait there for their sums."""
    dims = DIMENSIONS.model_copy(update={"hidden": 256, "vocab": 300})
    trained, work = Trained(written, precision, dims), architecture(dims).workload(LENGTH, 2 * MICRO_BATCHES, precision)
    trained.looks = False
    with LiveBytes() as live:
        trained.executor.run(lambda m: Batch(TEXT[m, :, :-1], TEXT[m, :, 1:]), trained._sync)
    monkeypatch.setattr(memory, "schedule_of", lambda *_: ("", (0,), 2, (1,), None))
    monkeypatch.setattr(memory, "lowered", lambda *_: (_actions(written),))
    monkeypatch.setattr(memory, "_fullest_moments", memory._fullest_moments.__wrapped__)
    need = memory.stage_bytes(work, trained.plan, 0, 0, precision)
    made = need.gradients if precision == "float32" else 0
    assert live.peak - made == pytest.approx(need.activations, rel=0.1)


def _bytes(loss: torch.Tensor | None) -> int:
    return 0 if loss is None else loss.nbytes
