"""Runs that others published, as questions to our planner: their model, chips and layout in our own words."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate, pairwise
from pathlib import Path

from backends.chip import ChipSpec, load_chip
from backends.sizes import GIB
from balancer.completion.completion import assign_owners, fill_warmups
from balancer.completion.timing import fill_ticks
from balancer.cost.kernels import FITTED, Kernels
from balancer.cost.times import datasheet_times
from balancer.cost.topology import PoolSpec, Topology
from balancer.cost.workload import NO_BYTES, TpBytes, UnitWork, Workload
from balancer.memory.need import memory_need
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.plan.recompute import Recompute
from balancer.problem import Problem
from balancer.simulate.prediction import Prediction
from balancer.simulate.simulate import simulate
from hetero.models.architecture import Architecture
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture

_POOL = "pool"
_CHIPS = {"A100": "A100-80G", "A800": "A800-80G", "H100": "H100", "H800": "H800", "H200": "H200", "V100": "V100-32G"}
_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_EARLY = "Megatron-LM", "Megatron-DeepSpeed"
"""Frameworks as they were in 2021 and 22: all collectives in the open, and, where a row names no kernel of attention,
its whole square in memory. Later ones hide a backward's collectives and keep rows of the stream apart."""
_SLICED = "Megatron-Core", "NeMo", "Megatron-Kwai"
"""Frameworks that hide a forward's collectives as well, behind slices of the products that they follow."""
_BALANCED = "nanotron"
"""Frameworks that cut a model by work, the head's counted, and not into as many layers each."""
_NETWORK_GBIT = 200.0
"""Of a chip's own card between hosts, where a row names none."""
_SUMS_WIDE = "nanotron"
"""Frameworks that send gradients in float32; others do in the 2 bytes of what they compute in."""


class Inexpressible(Exception):
    """A row that no plan of ours says."""


@dataclass(frozen=True)
class Run:
    """A row: its columns by name, empty ones left out."""

    row: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.row["id"]

    @property
    def source(self) -> str:
        return self.row["source"]

    @property
    def model(self) -> str:
        """Equal for one model in several sources."""
        sizes = (self.row.get(key, "") for key in ("n_layers", "hidden", "ffn", "kv_heads", "vocab"))
        return "x".join(sizes)

    @property
    def group(self) -> tuple[str, ...]:
        """Runs that differ in how they are laid out alone."""
        keys = "source", "model", "gpu", "n_gpus", "gbs", "seq", "precision", "framework"
        return tuple(self.row.get(key, "") for key in keys)

    @property
    def step_s(self) -> float | None:
        """As measured."""
        measured = self.row.get("kind") == "measured" and self.row.get("status") == "ok"
        return self.number("step_time_s") if measured and "step_time_s" in self.row else None

    @property
    def peak_bytes(self) -> float | None:
        return self.number("peak_mem_bytes") if "peak_mem_bytes" in self.row else None

    @property
    def ran_out(self) -> bool:
        return self.row.get("status") == "oom"

    def number(self, key: str, default: float | None = None) -> float:
        if key not in self.row:
            if default is None:
                raise Inexpressible(f"says no {key}")
            return default
        return float(self.row[key])

    def count(self, key: str, default: int | None = None) -> int:
        return int(self.number(key, default))

    def is_on(self, key: str, default: bool = False) -> bool:
        return self.row[key] not in ("0", "0.0", "False", "false") if key in self.row else default


def read_runs(path: Path) -> list[Run]:
    """Of a file with the columns of the published ones."""
    with path.open(newline="", encoding="utf-8") as file:
        return [Run({key: value for key, value in row.items() if value}) for row in csv.DictReader(file)]


@dataclass(frozen=True)
class Layout:
    """How a row's model lies on its chips. `replicas` are whole pipelines."""

    tp: int
    pp: int
    replicas: int
    chunks: int
    balanced: bool
    micro_batch: int
    batch: int
    recompute: Recompute
    sequence_parallel: bool
    early: bool
    sliced: bool
    whole_squares: bool
    kept_squares: bool
    wide_sums: bool
    owners: bool
    """Whether each piece of optimizer state lies on one chip alone."""


def layout_of(run: Run) -> Layout:
    """Raises Inexpressible where it is none of a plan's."""
    for key, plain, told in (("cp", 1, "context parallel"), ("act_offload_ratio", 0, "offloads activations")):
        if run.number(key, plain) != plain:
            raise Inexpressible(told)
    if run.count("zero_stage", 0) > 2:
        raise Inexpressible("shards weights over replicas (ZeRO-3)")
    if run.row.get("precision") not in _PRECISIONS:
        raise Inexpressible(f"computes in {run.row.get('precision', 'nothing that it says')}")
    if "stage_devices" in run.row:
        raise Inexpressible("stages differ")
    tp, pp, dp = run.count("tp"), run.count("pp"), run.count("dp")
    size, batch, layers = run.count("mbs"), run.count("gbs"), run.count("n_layers")
    interleaved = "interleaved" in run.row.get("schedule", "") and pp > 1
    chunks = run.count("vpp", 2 if layers % (2 * pp) == 0 else 1) if interleaved else 1
    if batch % (dp * size) or tp * pp * dp != run.count("n_gpus"):
        raise Inexpressible("micro-batches or chips do not divide")
    early, asked = run.row.get("framework", "").startswith(_EARLY), run.row.get("recompute", "none")
    squares = "flash" not in run.row.get("attn_kernel", "flash" if not early else "")
    words: dict[str, Recompute] = {"full": "full", "mlp-act+norm": "selective"}
    return Layout(
        tp=tp,
        pp=pp,
        replicas=dp,
        chunks=chunks,
        balanced=run.row.get("framework", "").startswith(_BALANCED) and chunks == 1,
        micro_batch=size,
        batch=batch,
        recompute=words.get(asked, "none"),
        sequence_parallel=tp > 1 and run.is_on("seq_parallel", not early),
        early=early,
        sliced=tp > 1 and run.row.get("framework", "").startswith(_SLICED),
        whole_squares=squares,
        kept_squares=squares and asked != "selective",
        wide_sums=run.row.get("framework", "").startswith(_SUMS_WIDE),
        owners=run.count("zero_stage", 0) > 0,
    )


def filled_in(run: Run) -> Iterator[Run]:
    """With each size of micro-batches that a row which leaves it unsaid may have had."""
    share = run.count("gbs") // run.count("dp")
    sizes = [size for size in (1, 2, 4, 8) if share % size == 0]
    for size in [run.count("mbs")] if "mbs" in run.row else sizes:
        yield Run({**run.row, "mbs": str(size)})


@cache
def _architecture(model_type: str, config: tuple[tuple[str, object], ...]) -> Architecture:
    return architecture(HfModel.of({"model_type": model_type, **dict(config)}))


def workload_of(run: Run, layout: Layout) -> Workload:
    """Of our own description of its model: gated ones are Llamas, others have StarCoder's layers, whatever their
    activation."""
    gated = run.row.get("mlp") == "swiglu"
    config = {
        "num_hidden_layers": run.count("n_layers"),
        "hidden_size": run.count("hidden"),
        "num_attention_heads": run.count("heads"),
        "num_key_value_heads": run.count("kv_heads", run.count("heads")),
        "intermediate_size": run.count("ffn"),
        "vocab_size": run.count("vocab"),
        "tie_word_embeddings": run.is_on("tied_embed"),
    }
    kind = "llama" if gated else "starcoder2"
    found = _architecture(kind, tuple(config.items()))
    if found.legal_tp(layout.tp):
        raise Inexpressible(str(found.legal_tp(layout.tp)))
    seq = run.count("seq")
    work: Workload = found.workload(seq, layout.batch, _PRECISIONS[run.row["precision"]])
    square = run.count("heads") * seq * seq if layout.whole_squares else 0
    units = [_with_square(unit, square, layout.kept_squares) if square else unit for unit in work.units]
    units = [_by_layer(unit) for unit in units]
    units[-1] = _in_one_piece(units[-1], 4 * seq * run.count("vocab"))
    if layout.early:
        units = [_in_the_open(unit, again=layout.recompute == "full") for unit in units]
    return replace(work, units=tuple(units), by_precision={}, sent_gradient_bytes=_sent_bytes(layout))


def _sent_bytes(layout: Layout) -> int:
    """Of each gradient, where 2 bytes of its parameter come back. A sum of all copies, without owners, comes back as
    wide as it was sent."""
    if not layout.wide_sums:
        return 2
    return 4 if layout.owners else 6


def _in_the_open(unit: UnitWork, again: bool) -> UnitWork:
    """A backward that hides no collectives beside gradients of weights, as if it made none, and took as long; those of
    a forward may come once more."""
    if not unit.weight_flops:
        return unit
    beside = unit.weight_flops

    def moved(one: UnitWork) -> UnitWork:
        return replace(one, weight_flops=0.0, frozen_flops=beside, remade_flops=one.remade_flops + beside)

    ways = {name: moved(made) for name, made in unit.recomputed.items()}
    return replace(moved(unit), recomputed=ways, tp_collectives=unit.tp_collectives * (1.5 if again else 1))


def _by_layer(unit: UnitWork) -> UnitWork:
    """Of a layer that is made again, one input is kept, not one of each half."""
    if unit.kind != "mlp":
        return unit
    again = replace(unit.under("full"), activation_bytes=0, whole_bytes=0)
    return replace(unit, recomputed={**unit.recomputed, "full": again})


def _in_one_piece(head: UnitWork, logits_bytes: int) -> UnitWork:
    """A head that keeps all logits in float32 and makes none again."""
    if not head.remade_flops:
        return head
    kept = head.activation_bytes + logits_bytes
    once = replace(head, remade_flops=0.0, remade=NO_BYTES, activation_bytes=kept, backward_bytes=logits_bytes // 2)
    return replace(once, recomputed={})


def _with_square(unit: UnitWork, square: int, kept: bool) -> UnitWork:
    """Attention that writes a whole square of scores, its softmax and what dropout left: 5 bytes of each score, which
    are made again where they are not kept. No mask saves a half."""
    flops = unit.forward_flops - unit.product_flops
    if not flops:
        return unit
    whole = replace(
        unit,
        forward_flops=unit.forward_flops + flops,
        activation_bytes=unit.activation_bytes + 5 * square,
        recomputed={},
    )
    again = replace(unit, forward_flops=whole.forward_flops, remade_flops=2 * flops, remade=TpBytes(5 * square))
    full = replace(unit.under("full"), forward_flops=whole.forward_flops)
    full = replace(full, remade_flops=full.remade_flops + flops, remade=full.remade + TpBytes(5 * square))
    return replace(whole if kept else again, recomputed={"full": full})


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
        precision = _PRECISIONS[run.row["precision"]]
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
        return assign_owners(fill_warmups(fill_ticks(plan, self.problem())), self.workload)

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
