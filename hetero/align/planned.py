"""A plan as a reference: one step of it on emulated ranks, put together by units."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from balancer.plan.plan import Plan
from hetero.align.captured import captured_gradients
from hetero.align.emulated_step import completed, emulated, run_step
from hetero.align.errors import AlignError
from hetero.align.given_text import GivenText
from hetero.align.model_trace import ModelTrace
from hetero.align.reference import Reference
from hetero.align.seen_units import GRADIENT, VALUE, SeenStep
from hetero.align.source import Source
from hetero.data.options import DataOptions
from hetero.job.job import Job
from hetero.models.options import ModelOptions
from hetero.models.registry import architecture
from hetero.models.unit import STREAM


class PlannedReference(Reference):
    """The ranks of a plan for `job`, with the weights of `source`: they compute in `precision` or, where that is None,
    in what plan and job say. Raises errors that explain themselves where the plan is none of the job's."""

    def __init__(self, source: Source, plan: Plan, job: Job, precision: str | None) -> None:
        self.source, self._given = source, plan if precision is None else _without_precisions(plan)
        self._job = emulated(job, plan, precision)
        self.dtypes = tuple({self._job.precision_of(name) for name in self._job.pools})
        self.samples = self._job.train.global_batch

    def trace(self, text: GivenText) -> ModelTrace:
        with self.source.directory() as model, tempfile.TemporaryDirectory() as name:
            job, seen = self._with(model, text), Path(name)
            plan = completed(job, self._given)
            run_step(job, plan, text, seen)
            return _trace(self.source, text, SeenStep(seen, plan), captured_gradients(seen, step=0))

    def _with(self, model: Path, text: GivenText) -> Job:
        """The job for these weights and this text."""
        told = ModelOptions(hf=str(model), init="weights")
        data = self._job.data if text.told.parts else DataOptions(seq_len=text.told.seq_len)
        return self._job.model_copy(update={"model": told, "data": data})


def _without_precisions(plan: Plan) -> Plan:
    return plan.with_stages(lambda _, stage: stage.model_copy(update={"precision": None}))


def _trace(source: Source, text: GivenText, seen: SeenStep, gradients: dict[str, torch.Tensor]) -> ModelTrace:
    """Owners have gradients of the mean loss, and of what trains alone."""
    model, batch = architecture(source.description), text.batch
    shape, streams = (*batch.tokens_BT.shape, model.boundary[STREAM]), range(len(model.units) - 1)
    loss = _put_together(seen, len(model.units) - 1, VALUE, ())
    values = [*(_put_together(seen, unit, VALUE, shape) for unit in streams), loss]
    wanted = {name: gradients[name] * batch.counted for name in gradients}
    return ModelTrace(
        values,
        [*(_put_together(seen, unit, GRADIENT, shape) for unit in streams), torch.ones(())],
        [seen.operators(unit) for unit in range(len(model.units))],
        {name: torch.zeros(extent) for name, extent in source.shapes.items()} | wanted,
        [seen.computed_by(unit) for unit in range(len(model.units))],
    )


def _put_together(seen: SeenStep, unit: int, what: str, shape: tuple[int, ...]) -> torch.Tensor:
    found = seen.shards(unit, what).whole(shape)
    if found is None:
        rule = f"its {what}, as {seen.computed_by(unit)} gave it, does not make up {list(shape) or 'a number'}"
        raise AlignError("--against", f"unit {unit}", rule, "compare with another plan, and please report it")
    return found
