"""Published runs as questions to our planner."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

from backends.chip import ChipSpec, load_chip
from backends.sizes import GIB
from balancer.completion.completion import assign_owners, fill_warmups
from balancer.completion.timing import fill_ticks
from balancer.cost.kernels import FITTED, Kernels
from balancer.cost.times import datasheet_times
from balancer.cost.topology import PoolSpec, Topology
from balancer.cost.workload import Workload
from balancer.memory.need import memory_need
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from balancer.simulate.prediction import Prediction
from balancer.simulate.simulate import simulate
from benchmarks.published_models import workload_of
from benchmarks.published_runs import PRECISIONS, Inexpressible, Layout, Run, filled_in, layout_of

_POOL = "pool"
_CHIPS = {"A100": "A100-80G", "A800": "A800-80G", "H100": "H100", "H800": "H800", "H200": "H200", "V100": "V100-32G"}
_NETWORK_GBIT = 200.0
"""Of a chip's own card between hosts, where a row names none."""


def fabric_bytes_per_s(run: Run) -> float:
    """Of each chip, by what the row says of the cards of its host."""
    told, chips = run.row.get("interconnect", ""), run.count("gpus_per_node", 8)
    patterns = (
        (r"(\d+)Gbps/node", 1 / chips),
        (r"(\d+)x(\d+) ?Gbps", 1 / chips),
        (r"(\d+)xHDR(\d+)", 1 / chips),
        (r"NDR(\d+)", 1.0),
    )
    for pattern, share in patterns:
        if found := re.search(pattern, told):
            gbit = share
            for number in found.groups():
                gbit *= float(number)
            return gbit * 1e9 / 8
    return (400.0 if "EFA" in told else _NETWORK_GBIT) * 1e9 / 8


def chip_of(run: Run) -> ChipSpec:
    name = next((chip for start, chip in _CHIPS.items() if run.row.get("gpu", "").startswith(start)), None)
    if name is None:
        raise Inexpressible(f"no data sheet of {run.row.get('gpu')}")
    chip = load_chip(name)
    if "gpu_mem_gib" not in run.row:
        return chip
    return replace(chip, memory_bytes=round(run.number("gpu_mem_gib") * GIB))


@dataclass(frozen=True)
class Case:
    """A row with its problem and its plan, which lacks what completion fills in."""

    run: Run
    layout: Layout
    workload: Workload
    pool: PoolSpec

    @staticmethod
    def of(run: Run) -> Case:
        """Raises Inexpressible. The size of micro-batches that a row leaves unsaid is that of the fastest plan that
        fits, or the smallest."""
        tried = [Case._of(filled) for filled in filled_in(run)]
        fitting = [case for case in tried[1:] if case.fits]
        return min([tried[0], *fitting], key=Case.expected_s) if fitting else tried[0]

    @staticmethod
    def _of(run: Run) -> Case:
        layout, chip = layout_of(run), chip_of(run)
        precision = PRECISIONS[run.row["precision"]]
        hosted = min(run.count("gpus_per_node", 8), run.count("n_gpus"))
        pool = PoolSpec(
            _POOL, chip, run.count("n_gpus"), hosted, chip.usable_bytes, layout.tp, precision,
            fabric_bytes_per_s=fabric_bytes_per_s(run),
        )  # fmt: skip
        return Case(run, layout, workload_of(run, layout), pool)

    def problem(self, kernels: Kernels = FITTED) -> Problem:
        topology = Topology((self.pool,), kernels=kernels)
        return Problem(topology, self.workload, datasheet_times(topology, self.workload))

    @cached_property
    def plan(self) -> Plan:
        """Completed, but for a look at its memory: what does not fit is judged by itself. Pipelines lie as is usual:
        neighbours in a tensor-parallel group, then copies of a stage, then the stages."""
        tp, pp, copies = self.layout.tp, self.layout.pp, self.layout.replicas
        stages, share = [self._stage(s) for s in range(pp)], self.layout.batch // copies
        pipelines = []
        for copy in range(copies):
            first = [tp * (copy + copies * s) for s in range(pp)]
            placed = (
                stage.model_copy(update={"chips": tuple(range(chip, chip + tp)), "precision": self.pool.precision})
                for stage, chip in zip(stages, first, strict=True)
            )
            pipelines.append(PipelinePlan(share=share, micro_batch=self.layout.micro_batch, stages=tuple(placed)))
        plan = Plan(schedule="interleaved" if self.layout.chunks > 1 else "1f1b", pipelines=tuple(pipelines))
        return assign_owners(fill_warmups(fill_ticks(plan, self.problem())), self.problem())

    def predicted(self, kernels: Kernels = FITTED) -> Prediction:
        """By the function that ranks plans."""
        return simulate(self.plan, self.problem(kernels))

    def expected_s(self, kernels: Kernels = FITTED) -> float:
        return self.predicted(kernels).step_s

    def with_copies(self, most: int) -> Case:
        """The same with no more copies of its pipeline."""
        copies, share = min(most, self.layout.replicas), self.layout.batch // self.layout.replicas
        layout = replace(self.layout, replicas=copies, batch=copies * share)
        return replace(self, layout=layout, workload=replace(self.workload, global_batch=layout.batch))

    def memory_bytes(self) -> int:
        """Of the chip that needs most, first or last of its pipeline. Optimizer state is spread over copies as evenly
        as that of ZeRO is, or held by each; later frameworks sum gradients in 2 bytes where we take 4."""
        alone = self.with_copies(1)
        needs = [memory_need(alone.plan, (0, stage), alone.problem()) for stage in {0, self.layout.pp - 1}]
        shared = self.layout.replicas if self.layout.owners else 1
        narrow = 2 if self.layout.sliced else 1
        told = (replace(n, optimizer=n.optimizer // shared, gradients=n.gradients // narrow) for n in needs)
        return max(need.total for need in told)

    @property
    def fits(self) -> bool:
        return self.memory_bytes() <= self.pool.memory_bytes

    def _stage(self, stage: int) -> StagePlan:
        pp, chunks = self.layout.pp, self.layout.chunks
        share = self.layout.batch // self.layout.replicas // self.layout.micro_batch
        ranges = tuple(_range(self.run.count("n_layers"), stage + pp * c, pp * chunks) for c in range(chunks))
        if self.layout.balanced:
            ranges = (_by_work(self.workload, pp)[stage],)
        return StagePlan(
            pool=_POOL,
            tp=self.layout.tp,
            units=ranges,
            recompute=self.layout.recompute,
            sequence_parallel=self.layout.sequence_parallel,
            warmup=min(share, 2 * pp) if chunks > 1 else None,
            chips=None,
            tp_slices=4 if self.layout.sliced else 1,
        )


def _range(layers: int, chunk: int, chunks: int) -> tuple[int, int]:
    """Layers as evenly as can be; two units each, behind the embedding; the head is the last chunk's."""
    first, last = layers * chunk // chunks, layers * (chunk + 1) // chunks
    return (1 + 2 * first if chunk else 0), 1 + 2 * last + (chunk + 1 == chunks)


def _by_work(work: Workload, stages: int) -> list[tuple[int, int]]:
    """Whole layers, a stage's last one being that with which it has its part of all work."""
    done = list(accumulate(unit.product_flops for unit in work.units))
    bounds = [0]
    for stage in range(1, stages):
        full = next(number for number, flops in enumerate(done) if flops > done[-1] * stage / stages)
        bounds.append(max(full + 1 + full % 2, bounds[-1] + 2))
    return list(pairwise([*bounds, len(work.units)]))


def cases(runs: list[Run]) -> Iterator[tuple[Run, Case | str]]:
    """Each row's, or why there is none."""
    for run in runs:
        try:
            yield run, Case.of(run)
        except Inexpressible as reason:
            yield run, str(reason)
