"""A rank begins from the weights of a model's directory, and reads what it holds of them and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from backends.cpu import CpuBackend
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from bridge.rank import RankId
from hetero.engine.state.origin import begin
from hetero.engine.state.state import State
from hetero.engine.wiring import tensor_holdings
from hetero.huggingface.folder import HfFolder
from hetero.models.hf_model import HfModel
from hetero.models.registry import weights
from hetero.words.options import TrainOptions
from hetero.words.spec import RunSpec, TextRun
from tests.unit.hetero.huggingface.written import write_folder

CONFIG: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def _spec(folder: Path, *stages: StagePlan) -> RunSpec:
    return RunSpec(
        epoch=0,
        model=HfModel.of(HfFolder(folder).config),
        train=TrainOptions(steps=1, global_batch=1),
        text=TextRun(path="", fingerprint="", seq_len=4, vocab=50),
        plan=Plan(pipelines=(PipelinePlan(share=1, micro_batch=1, stages=stages),)),
        pools={},
        steps=1,
        state="weights",
        weights_folder=str(folder),
    )


def _stage(pool: str, first: int, last: int, tp: int = 1, **facts: Any) -> StagePlan:
    facts = {"precision": "float32", "owns": ((first, last),), **facts}
    return StagePlan(pool=pool, tp=tp, units=((first, last),), chips=tuple(range(tp)), **facts)


def _begin(spec: RunSpec, me: RankId) -> State:
    return begin(spec, tensor_holdings(spec), me, CpuBackend())


def _written(folder: Path, dtype: torch.dtype, **changes: Any) -> dict[str, torch.Tensor]:
    config = CONFIG | changes
    shapes = weights(HfModel.of(config)).foreign
    tensors = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    write_folder(folder, tensors, config, shards=2)
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_holds_its_part(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = _written(tmp_path, dtype)
    spec = _spec(tmp_path, _stage("a", 0, 3, tp=2), _stage("b", 3, 6))
    states = [_begin(spec, RankId("a", 0)), _begin(spec, RankId("a", 1)), _begin(spec, RankId("b", 0))]
    q, down = tensors["model.layers.0.self_attn.q_proj.weight"], tensors["model.layers.1.mlp.down_proj.weight"]
    for number in (0, 1):
        assert torch.equal(states[number].values["units.1.q.weight"], q[8 * number :][:8].float())
        assert states[number].step == 0
    assert torch.equal(states[2].values["units.4.down.weight"], down.float())
    assert all(master is state.values[name] for state in states for name, master in state.masters.items())


def test_masters_keep_what_values_round_away(tmp_path: Path) -> None:
    tensors = _written(tmp_path, torch.float32)
    spec = _spec(tmp_path, _stage("a", 0, 6, precision="bfloat16"))
    state, norm = _begin(spec, RankId("a", 0)), tensors["model.norm.weight"]
    assert torch.equal(state.masters["units.5.norm.weight"], norm)
    assert torch.equal(state.values["units.5.norm.weight"], norm.bfloat16())
    hosted = _begin(_spec(tmp_path, _stage("a", 0, 6, precision="bfloat16", optimizer="host")), RankId("a", 0))
    assert torch.equal(hosted.masters["units.5.norm.weight"], norm)


def test_a_tied_weight_is_read_once(tmp_path: Path) -> None:
    tensors = _written(tmp_path, torch.bfloat16, tie_word_embeddings=True)
    state = _begin(_spec(tmp_path, _stage("a", 0, 6)), RankId("a", 0))
    assert torch.equal(state.values["units.0.embedding.weight"], tensors["model.embed_tokens.weight"].float())
    assert "units.5.head.weight" not in state.values


_PEAK = """
import json, sys
from pathlib import Path
from bridge.rank import RankId
from tests.unit.hetero.engine.test_weights import _begin, _spec, _stage

def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

folder = Path(sys.argv[1])
spec = _spec(folder, _stage("a", 0, 2), _stage("b", 2, 42))
_begin(_spec(folder, _stage("b", 0, 41), _stage("a", 41, 42)), RankId("a", 0))  # what reading itself takes
Path("/proc/self/clear_refs").write_text("5")
before = kib("VmRSS")
state = _begin(spec, RankId("a", 0))
held = sum(value.nbytes for value in state.values.values())
print(json.dumps({"took": (kib("VmHWM") - before) * 1024, "held": held}))
"""


@pytest.mark.slow
def test_a_rank_takes_what_it_holds_and_one_tensor(tmp_path: Path) -> None:
    """Of a directory of 20 times that size; by what the kernel counts of the process, mapped files included."""
    sizes = {"vocab_size": 512, "hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 4}
    tensors = _written(tmp_path, torch.float32, **sizes, num_key_value_heads=4, num_hidden_layers=20)
    found = subprocess.run([sys.executable, "-c", _PEAK, tmp_path], capture_output=True, text=True, check=True)
    told, largest = json.loads(found.stdout), max(value.nbytes for value in tensors.values())
    assert sum(value.nbytes for value in tensors.values()) > 20 * told["held"] > 0
    assert told["took"] <= told["held"] + largest + (1 << 20), told
