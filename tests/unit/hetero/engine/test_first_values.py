"""First values are made where they are used, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from backends.cpu import CpuBackend
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from bridge.rank import RankId
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.store import CheckpointStore
from hetero.engine.state import origin
from hetero.engine.state.origin import begin, note_of
from hetero.engine.state.saving import Saver
from hetero.engine.state.state import State
from hetero.engine.step.stage import RankPlace, Stage
from hetero.engine.wiring import tensor_holdings
from hetero.layers.group import TensorGroup
from hetero.layers.live_bytes import LiveBytes
from hetero.models.dimensions import Dimensions
from hetero.words.options import LossScaleOptions, TrainOptions
from hetero.words.orders import Saved
from hetero.words.spec import RunSpec, TextRun

TINY = Dimensions(layers=1, hidden=16, heads=2, kv_heads=2, ffn=32, vocab=50, tie_embeddings=True)
ME = RankId("a", 0)
STAGE = StagePlan(pool="a", units=((0, 4),), chips=(0,), owns=((0, 4),), precision="float32")
PLAN = Plan(pipelines=(PipelinePlan(share=1, micro_batch=1, stages=(STAGE,)),))


def _spec(**facts: Any) -> RunSpec:
    train = TrainOptions(steps=2, global_batch=1, loss_scale=LossScaleOptions(initial=8.0))
    text = TextRun(path="", fingerprint="", seq_len=4, vocab=TINY.vocab)
    return RunSpec(epoch=0, model=TINY, train=train, text=text, plan=PLAN, pools={}, steps=2, **facts)


def _begin(spec: RunSpec, me: RankId = ME) -> State:
    return begin(spec, tensor_holdings(spec), me, CpuBackend())


def test_a_stage_takes_no_memory_of_its_own() -> None:
    state = _begin(_spec())
    place = RankPlace(0, 0, 0, (ME,), STAGE.axes)
    stage = Stage(TINY, PLAN, place, TensorGroup(), CpuBackend(), "float32", state.values)
    assert stage.parameters.keys() == state.values.keys()
    assert all(p.data_ptr() == state.values[name].data_ptr() for name, p in stage.parameters.items())
    held = {id(p) for chunk in stage.chunks.values() for p in chunk.parameters()}
    assert held == {id(p) for p in stage.parameters.values()}


def _saved(tmp_path: Path, state: State) -> RunSpec:
    """The run that goes on from it."""
    store, state.step = CheckpointStore(tmp_path), 1
    told: list[Saved] = []
    saver = Saver(ME, CpuBackend(), told.append, print)
    saver.save(store, state)
    saver.wait()
    pieces = [saved.piece for saved in told if saved.piece is not None]
    scalars = {"updates": 1, "loss_scale": 4.0, "good_steps": 1}
    run = RunState(consumed_sequences=1, consumed_tokens=4, job_fingerprint="", plan={}, scalars=scalars)
    store.commit(1, run, pieces)
    return _spec(start=1, state="checkpoint", resume_folder=str(tmp_path))


def test_a_state_that_is_read_from_a_checkpoint_makes_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = _begin(_spec())
    resumed = _saved(tmp_path, before)
    monkeypatch.setattr(origin, "fill", lambda *_: pytest.fail("made first values"))
    after = _begin(resumed)
    assert (after.step, after.updates, after.loss_scale.kept()) == (1, 1, {"loss_scale": 4.0, "good_steps": 1})
    assert all(torch.equal(value, before.values[name]) for name, value in after.values.items())


class BlankChip(CpuBackend):
    """Its memory has a size, and no content."""

    device = torch.device("meta")


def _in_host(spec: RunSpec, precision: Any) -> RunSpec:
    stage = STAGE.model_copy(update={"optimizer": "host", "precision": precision})
    return spec.model_copy(update={"plan": Plan(pipelines=(PipelinePlan(share=1, micro_batch=1, stages=(stage,)),))})


@pytest.mark.parametrize(("precision", "item_bytes"), [("float32", 4), ("bfloat16", 2)])
def test_a_chip_has_nothing_but_values_where_the_optimizer_lies_in_host_memory(
    precision: str, item_bytes: int, tmp_path: Path
) -> None:
    before = _begin(_spec())
    before.moments = {
        name: {"exp_avg": master + 1, "exp_avg_sq": master + 2} for name, master in before.masters.items()
    }
    spec = _in_host(_saved(tmp_path, before), precision)
    with LiveBytes("meta") as chip:
        state = begin(spec, tensor_holdings(spec), ME, BlankChip())
    assert chip.peak == item_bytes * sum(value.numel() for value in state.values.values())
    for name, kinds in before.owned().items():
        assert all(torch.equal(state.owned()[name][kind], tensor) for kind, tensor in kinds.items())
    state.to_host(lambda tensor: pytest.fail("is there already"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_first_masters_are_made_there_too(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, made = CpuBackend.beside, list[torch.Tensor]()
    monkeypatch.setattr(CpuBackend, "beside", lambda *asked: made.append(beside(*asked)) or made[-1])
    state = _begin(_in_host(_spec(), precision))
    assert {id(master) for master in state.masters.values()} == {id(tensor) for tensor in made}
    assert all(torch.equal(master, state.values[name].float()) for name, master in state.masters.items())
    state.to_host(lambda tensor: pytest.fail("is there already"))


def test_a_rank_that_the_plan_leaves_idle_holds_nothing() -> None:
    state = _begin(_spec(), RankId("a", 1))
    assert not state.keyed()
    assert (state.step, state.loss_scale.scale) == (0, 8.0)


def test_a_rank_whose_chip_makes_none_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert note_of(_spec(), ME, CpuBackend()) is None
    monkeypatch.setattr(origin, "host_makes", lambda *_: "its bits are not the host's")
    assert str(note_of(_spec(), ME, CpuBackend())).endswith(
        "made by the host, which takes longer: its bits are not the host's"
    )
    assert note_of(_spec(), RankId("idle", 0), CpuBackend()) is None
    assert note_of(_spec(state="live"), ME, CpuBackend()) is None
