"""A whole model on one stage, and its executor: the path of a step without ranks and messages."""

from __future__ import annotations

from unittest.mock import MagicMock

import torch

from backends.communicator import Communicator
from backends.cpu import CpuBackend
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.schedule.lowering import actions_of
from bridge.rank import RankId
from hetero.engine.expected import ChipPace
from hetero.engine.step.executor import Executor
from hetero.engine.step.meter import Meter
from hetero.engine.step.stage import DTYPES, RankPlace, Stage
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.models.batch import Batch
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.models.tuning import EVERYTHING, Tuning
from hetero.models.unit_module import build_unit
from hetero.transfer.waits import Waits

LENGTH = 16


class OneStage:
    """With `layers`, `micro_batches` in a step, as rank 0 of a group of `tp` whose others answer nothing, on any
    device; on "meta" nothing is computed, and whoever wants to know a number of the chip's is refused."""

    def __init__(
        self,
        layers: int,
        micro_batches: int,
        precision: str = "float32",
        device: str = "cpu",
        tp: int = 1,
        tuning: Tuning = EVERYTHING,
    ) -> None:
        dims = Dimensions(layers=layers, hidden=32, heads=4, kv_heads=2, ffn=44, vocab=50)
        backend, group = CpuBackend(), TensorGroup() if tp == 1 else TensorGroup(tp, 0, MagicMock(spec=Communicator))
        units, place = len(architecture(dims).units), torch.device(device)
        stage = StagePlan(pool="a", tp=tp, units=((0, units),), chips=tuple(range(tp)), warmup=1)
        pipeline = PipelinePlan(share=micro_batches, micro_batch=1, stages=(stage,))
        builder = Builder(group, backend.operators, DTYPES[precision], place)
        made = [build_unit(dims, unit, builder, tuning=tuning) for unit in range(units)]
        values = {tensor.name: tensor.parameter.detach() for unit in made for tensor in unit.tensors()}
        me = RankPlace(0, 0, 0, tuple(RankId("a", chip) for chip in range(tp)), stage.axes)
        self.stage = Stage(dims, Plan(pipelines=(pipeline,)), me, group, backend, precision, values, tuning)
        self.meter = Meter(backend, Waits(backend))
        told = [*architecture(dims).boundary], (1, LENGTH), self.stage.dtype, self.meter, ChipPace()
        self.executor = Executor(self.stage.chunks, actions_of(pipeline, "1f1b")[0], {}, *told)
        tokens = torch.randint(50, (1, LENGTH + 1), generator=torch.Generator().manual_seed(4)).to(place)
        self._batch = Batch(tokens[:, :-1], tokens[:, 1:])

    def step(self) -> None:
        self.meter.begin(traced=False)
        self.executor.run(lambda number: self._batch, lambda chunk, names: None)
        self.stage.clear()
