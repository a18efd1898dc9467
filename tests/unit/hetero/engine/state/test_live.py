"""State moves between ranks in threads, over real endpoints: every element lands, once, in little memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from math import prod
from typing import Any, NamedTuple

import pytest
import torch

from backends.cpu import CpuBackend
from backends.errors import OutOfMemory
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from bridge.errors import PeerLost
from bridge.layout.layout import TensorLayout, even_bounds
from bridge.layout.reshard import Placement
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine import wiring
from hetero.engine.state import live, moving
from hetero.engine.state.live import LiveMove
from hetero.engine.state.origin import begin
from hetero.engine.state.ownership import Holding
from hetero.engine.state.routes import PARAMETER, VALUE, Key
from hetero.engine.state.state import State
from hetero.engine.wiring import tensor_holdings
from hetero.layers.live_bytes import LiveBytes
from hetero.models.dimensions import Dimensions
from hetero.words.options import LossScaleOptions, OptimizerOptions, TrainOptions
from hetero.words.orders import Moved
from hetero.words.spec import RunSpec, TextRun
from tests.contract.bridge_hosts import Host, link
from tests.patience import WAIT_S

DIMS = Dimensions(layers=2, hidden=32, heads=4, kv_heads=2, ffn=42, vocab=65, tie_embeddings=True)
RANKS = [*(RankId("a", index) for index in range(4)), *(RankId("b", index) for index in range(2))]
STEP, UPDATES, SCALE = 7, 5, 1024.0
NUMBERS_BYTES = 48
EPOCHS = count(1)


def _stage(pool: str, chips: tuple[int, ...], units: tuple[int, int], owns: bool = True, narrow: str = "") -> StagePlan:
    precision: Any = "bfloat16" if pool in narrow else "float32"
    ranges = (units,) if owns else ()
    return StagePlan(pool=pool, tp=len(chips), units=(units,), chips=chips, owns=ranges, precision=precision, warmup=1)


def _plan(*pipelines: tuple[StagePlan, ...]) -> Plan:
    return Plan(pipelines=tuple(PipelinePlan(share=1, stages=stages) for stages in pipelines))


def _plans(narrow: str = "") -> dict[str, Plan]:
    def stage(*arguments: Any, **options: Any) -> StagePlan:
        return _stage(*arguments, narrow=narrow, **options)

    return {
        "one": _plan((stage("a", (0,), (0, 6)),)),
        "tp 4": _plan((stage("a", (3, 1, 0, 2), (0, 6)),)),
        "stages": _plan((stage("a", (0, 1), (0, 3)), stage("b", (0,), (3, 6)))),
        "other cut": _plan((stage("a", (0, 1), (0, 4)), stage("b", (1,), (4, 6)))),
        "copies": _plan((stage("a", (0, 1), (0, 6)),), (stage("b", (0, 1), (0, 6), owns=False),)),
        "other owner": _plan((stage("a", (0, 1), (0, 6), owns=False),), (stage("b", (0, 1), (0, 6)),)),
        "only b": _plan((stage("b", (0, 1), (0, 6)),)),
        "many copies": _plan((stage("a", (0,), (0, 6)),), *((stage("b", (i,), (0, 6), owns=False),) for i in range(2))),
    }


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one rank fails the others give up."""
    monkeypatch.setattr(moving, "WAIT_S", WAIT_S / 2)


@pytest.fixture(scope="module")
def ports() -> Iterator[Mapping[RankId, Port]]:
    a, b = Host("a@0", ["zmq"]), Host("b@0", ["zmq"])
    link(a, b, "zmq")
    hosts = {"a": a, "b": b}
    yield {rank: hosts[rank.pool].port(rank.index) for rank in RANKS}
    for host in hosts.values():
        host.close()


def _spec(plan: Plan, epoch: int, optimizer: OptimizerOptions) -> RunSpec:
    train = TrainOptions(steps=9, global_batch=len(plan.pipelines), optimizer=optimizer)
    text = TextRun(path="", fingerprint="", seq_len=4, vocab=DIMS.vocab)
    return RunSpec(epoch=epoch, model=DIMS, train=train, text=text, plan=plan, pools={}, start=STEP, steps=9)


def _numbered(key: Key, shape: tuple[int, ...]) -> torch.Tensor:
    """The whole tensor, every element another value, and no two tensors alike."""
    start = sum(map(ord, "".join(key))) % 89
    return torch.arange(prod(shape), dtype=torch.float32).view(shape) + start


def _whole(key: Key, shape: tuple[int, ...]) -> torch.Tensor:
    return _numbered(key._replace(kind=PARAMETER) if key.kind == VALUE else key, shape)


def _state(spec: RunSpec, me: RankId) -> State:
    """As after some updates."""
    state = begin(spec, tensor_holdings(spec), me, CpuBackend())
    if not state.values:
        return state
    state.updates = UPDATES
    state.loss_scale = state.loss_scale.of(LossScaleOptions(), {"loss_scale": SCALE, "good_steps": 3})
    if spec.train.optimizer.name == "adamw":
        kinds = ("exp_avg", "exp_avg_sq")
        state.moments = {n: {k: torch.empty_like(m) for k in kinds} for n, m in state.masters.items()}
    for key, tensor in state.keyed().items():
        layout, position = state.places[key.name]
        tensor.copy_(_whole(key, layout.shape)[tuple(slice(*b) for b in layout.region(position))])
    return state


class Result(NamedTuple):
    before: State
    after: State
    moved: Moved
    peak: int


def _move(
    ports: Mapping[RankId, Port], one: Plan, other: Plan, optimizer: OptimizerOptions | None = None
) -> dict[RankId, Result]:
    rule = optimizer or OptimizerOptions()
    before, after = _spec(one, next(EPOCHS), rule), _spec(other, next(EPOCHS), rule)

    def of_rank(me: RankId) -> Result:
        counted, state = LiveBytes("cpu"), _state(before, me)
        known = State(**vars(state))
        for tensor in state.keyed().values():
            counted.count(tensor)
        counted.peak = counted.now
        with counted:
            moved_state, moved = LiveMove(before, after, me, CpuBackend(), ports[me]).run(state)
        ports[me].close_epoch(before.epoch)
        return Result(known, moved_state, moved, counted.peak)

    with ThreadPoolExecutor(len(RANKS)) as pool:
        return dict(zip(RANKS, pool.map(of_rank, RANKS, timeout=WAIT_S), strict=True))


def _check(results: Mapping[RankId, Result], other: Plan, optimizer: OptimizerOptions | None = None) -> None:
    spec = _spec(other, 0, optimizer or OptimizerOptions())
    for me, result in results.items():
        wanted, found = _state(spec, me), result.after
        assert found.keyed().keys() == wanted.keyed().keys()
        for key, tensor in wanted.keyed().items():
            assert found.keyed()[key].dtype == tensor.dtype
            assert torch.equal(found.keyed()[key], tensor), (me, key)
            assert found.keyed()[key].is_contiguous()
        if found.values:
            assert (found.step, found.updates) == (STEP, UPDATES)
            assert found.loss_scale.kept() == {"loss_scale": SCALE, "good_steps": 3}
        assert sum(result.moved.sent_bytes.values()) == result.moved.planned_bytes
        assert result.peak == pytest.approx(result.moved.peak_bytes, rel=0.1, abs=NUMBERS_BYTES)


ANOTHER = [("stages", "other cut"), ("one", "tp 4"), ("copies", "only b"), ("tp 4", "stages")]
PAIRS = [
    ("only b", "many copies"),
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ANOTHER),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_every_rank_gets_what_the_new_plan_gives_it(ports: Mapping[RankId, Port], one: str, other: str) -> None:
    plans = _plans()
    _check(_move(ports, plans[one], plans[other]), plans[other])


@pytest.mark.slow
@pytest.mark.parametrize("narrow", ["a", "b", "ab"])
def test_pools_that_compute_in_less_get_masters_where_they_own(ports: Mapping[RankId, Port], narrow: str) -> None:
    plans = _plans(narrow)
    for one, other in (("copies", "other owner"), ("stages", "many copies")):
        _check(_move(ports, plans[one], plans[other]), plans[other])


def _hosted(plan: Plan) -> Plan:
    """With all optimizers in host memory."""
    return plan.with_stages(lambda _, stage: stage.model_copy(update={"optimizer": "host"}))


@pytest.mark.slow
@pytest.mark.parametrize("narrow", ["", "a"])
@pytest.mark.parametrize(("there", "here"), [(True, False), (False, True), (True, True)])
def test_state_moves_from_and_to_host_memory(
    ports: Mapping[RankId, Port], narrow: str, there: bool, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is where it was, and what is new there is made there: no chip has it for a while."""
    plans, beside, made = _plans(narrow), CpuBackend.beside, set[int]()

    def recorded(*asked: Any) -> torch.Tensor:
        found = beside(*asked)
        made.add(found.data_ptr())
        return found

    one, other = (_hosted(plans[n]) if host else plans[n] for n, host in (("stages", there), ("other owner", here)))
    monkeypatch.setattr(CpuBackend, "beside", recorded)
    results = _move(ports, one, other)
    _check(results, other)
    for result in results.values():
        kept = {tensor.data_ptr() for tensor in result.before.keyed().values()}
        for key, tensor in result.after.keyed().items():
            chip = key.kind == VALUE or (key.kind == PARAMETER and result.after.values[key.name].dtype == torch.float32)
            if tensor.data_ptr() not in kept:
                assert (tensor.data_ptr() in made) == (here and not chip)


@pytest.mark.parametrize(("there", "here"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_chip_is_asked_for_what_it_holds_itself_while_state_moves(
    ports: Mapping[RankId, Port], there: bool, here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same layout before and after: bfloat16 values, with masters and moments that stay, come, go or are not."""
    claimed: list[int] = []
    monkeypatch.setattr(CpuBackend, "claim", lambda self, name, nbytes: claimed.append(nbytes))
    plan = _plans("a")["one"]
    one, other = (_hosted(plan) if host else plan for host in (there, here))
    result = _move(ports, one, other)[RANKS[0]]
    values = sum(value.nbytes for value in result.after.values.values())
    assert max(claimed) == values + (0 if there and here else 3 * 2 * values)


def _scattered(spec: RunSpec) -> list[Holding]:
    """Of a stage's ranks, the first has no part of any matrix, and the others a box that is cut in both dimensions."""
    return [
        replace(h, holders=tuple(replace(one, placement=_without_first(one.placement)) for one in h.holders))
        for h in wiring.tensor_holdings(spec)
    ]


def _without_first(placement: Placement) -> Placement:
    shape, parts = placement.layout.shape, len(placement.ranks) - 1
    if len(shape) == 1 or parts == 0:
        return placement
    (rows, columns), cut = shape, max(1, parts - 1)
    first = ((0, rows), (0, columns // 2 if parts > 1 else columns))
    others = [(bounds, (columns // 2, columns)) for bounds in even_bounds(rows, cut)] if parts > 1 else []
    return Placement(TensorLayout(shape, (None, *others, first)), placement.ranks)


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), [("tp 4", "copies"), ("other owner", "tp 4"), ("stages", "other cut")])
@pytest.mark.parametrize("narrow", ["", "a"])
def test_what_some_ranks_hold_nothing_of_moves_alike(
    ports: Mapping[RankId, Port], monkeypatch: pytest.MonkeyPatch, one: str, other: str, narrow: str
) -> None:
    for module in (live, sys.modules[__name__]):
        monkeypatch.setattr(module, "tensor_holdings", _scattered)
    plans = _plans(narrow)
    results = _move(ports, plans[one], plans[other])
    _check(results, plans[other])
    held = [[value.dim() for value in result.after.values.values()] for result in results.values()]
    assert any(set(dims) == {1} for dims in held), "no rank holds vectors alone"


def test_a_rule_without_moments_has_none_to_move(ports: Mapping[RankId, Port]) -> None:
    plans, rule = _plans(), OptimizerOptions(name="sgd")
    _check(_move(ports, plans["one"], plans["stages"], rule), plans["stages"], rule)


def test_what_stays_is_neither_sent_nor_copied(ports: Mapping[RankId, Port]) -> None:
    plans = _plans()
    for result in _move(ports, plans["copies"], plans["copies"]).values():
        assert not sum(result.moved.sent_bytes.values())
        after = result.after.keyed()
        assert all(after[key] is tensor for key, tensor in result.before.keyed().items())


def test_another_owner_gets_moments_alone(ports: Mapping[RankId, Port]) -> None:
    plans = _plans()
    results = _move(ports, plans["copies"], plans["other owner"])
    moments = [
        moment for result in results.values() for kinds in result.before.moments.values() for moment in kinds.values()
    ]
    sent = [sum(result.moved.sent_bytes.values()) for result in results.values()]
    assert sum(sent) == sum(moment.nbytes for moment in moments)


@pytest.mark.slow
def test_messages_are_cut_and_slots_used_again(ports: Mapping[RankId, Port], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "MOST_BYTES", 256)
    monkeypatch.setattr(moving, "LEAST_BYTES", 256)
    plans = _plans("b")
    _check(_move(ports, plans["stages"], plans["many copies"]), plans["many copies"])


def test_channels_are_closed_when_all_is_over(ports: Mapping[RankId, Port]) -> None:
    """What a move that failed has left in another test is not looked at."""
    plans, before = _plans(), {id_ for port in ports.values() for id_ in port._channels}
    _move(ports, plans["one"], plans["many copies"])
    assert {id_ for port in ports.values() for id_ in port._channels} <= before


def test_a_chip_without_room_for_both_plans_says_so(
    ports: Mapping[RankId, Port], monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim(self: CpuBackend, name: str, nbytes: int) -> None:
        raise OutOfMemory("memory", name, "it is too small", "")

    monkeypatch.setattr(CpuBackend, "claim", claim)
    with pytest.raises(OutOfMemory, match="state on its way"):
        _move(ports, _plans()["one"], _plans()["tp 4"])


@pytest.mark.parametrize("channels", [0, 1, 5, 1000])
def test_slots_of_all_channels_have_a_bounded_size(channels: int) -> None:
    size = moving.message_bytes(channels)
    assert moving.LEAST_BYTES <= size <= moving.MOST_BYTES
    assert size == moving.LEAST_BYTES or size * moving.SLOTS * max(1, channels) <= moving.ROOM_BYTES


def test_a_peer_that_has_gone_is_named() -> None:
    host = Host("a@0", [])
    ports = {rank: host.port(rank.index) for rank in RANKS[:2]}
    before = _spec(_plans()["one"], 1, OptimizerOptions())
    after = _spec(_plan((_stage("a", (0, 1), (0, 6)),)), 2, OptimizerOptions())
    ports[RANKS[1]].close()
    with pytest.raises(PeerLost, match="a:1"):
        LiveMove(before, after, RANKS[0], CpuBackend(), ports[RANKS[0]]).run(_state(before, RANKS[0]))
    host.close()
