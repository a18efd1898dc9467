"""The plans that `python -m benchmarks.memory` runs: those that the model of memory was looked at with, and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from balancer.completion.completion import complete
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.problem import Problem
from hetero.job.job import Job
from hetero.job.planning.problem import legal_tp, topology, workload

ROOT = Path(__file__).parents[1]
STEPS = 2
"""The second has the optimizer's moments from its beginning."""
POOLS = {
    "n": {"family": "cuda", "chip": "A800-80G", "count": 4},
    "a": {"family": "ascend", "chip": "Ascend-910B2", "count": 2},
    "k": {"family": "kunlun", "chip": "Kunlun-P800", "count": 1},
}
MODEL = {"layers": 4, "hidden": 128, "heads": 4, "kv_heads": 2, "ffn": 344, "vocab": 512}
OTHER = {"layers": 3, "hidden": 192, "heads": 6, "kv_heads": 6, "ffn": 500, "vocab": 1100}
UNITS = 2 * MODEL["layers"] + 2
LARGE_VOCAB = {"vocab": 4096}
Fields = dict[str, Any]
"""Some of a case's."""
Ranges = Sequence[tuple[int, int]]


RECOMPUTED = {way: f"pp over a bridge, long, bfloat16, recompute {way}" for way in ("none", "selective", "full")}
"""Names of plans that differ in that alone."""


def stage(pool: str, tp: int, *units: tuple[int, int], **strategy: Any) -> StagePlan:
    return StagePlan(pool=pool, tp=tp, units=units, **strategy)


def pipeline(share: int, *stages: StagePlan, micro_batch: int = 1) -> PipelinePlan:
    return PipelinePlan(share=share, micro_batch=micro_batch, stages=stages)


@dataclass(frozen=True)
class Case:
    """A job and a plan as a person would write it. `real` pools have chips that are there, with these variables."""

    name: str
    pipelines: tuple[PipelinePlan, ...]
    precision: str = "float32"
    precisions: Mapping[str, str] = field(default_factory=dict)
    schedule: str = "1f1b"
    model: Mapping[str, Any] = field(default_factory=dict)
    codec: str = "none"
    bucket_mib: float = 1.0
    seq_len: int = 64
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    real: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def job(self) -> Job:
        batch = sum(one.share for one in self.pipelines)
        train = {"steps": STEPS, "global_batch": batch, "precision": self.precision, "replica_check_every": 0}
        return Job.model_validate(
            {
                "model": {"dimensions": {"family": "llama", **MODEL, **self.model}},
                "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": self.seq_len},
                "train": train | {"optimizer": self.optimizer},
                "pools": {name: self._pool(name) for name in POOLS},
                "bridge": {"codec": self.codec, "sync_bucket_mib": self.bucket_mib},
                "monitor": {"trace_every": 0},
            }
        )

    def _pool(self, name: str) -> dict[str, Any]:
        here = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        said = {"env": {"vars": self.real.get(name, here)}, "precision": self.precisions.get(name)}
        return POOLS[name] | said | ({} if name in self.real else {"emulate": {}})

    @property
    def plan(self) -> Plan:
        written = Plan(schedule=self.schedule, pipelines=self.pipelines)
        return complete(written, Problem(topology(self.job), workload(self.job), legal_tp=legal_tp(self.job)))


def known() -> list[Case]:
    """Those that the model was made to agree with."""
    whole, first, last = (0, UNITS), (0, 5), (5, UNITS)
    one, two = pipeline(4, stage("n", 1, whole)), pipeline(4, stage("n", 2, whole))
    line = pipeline(8, stage("n", 1, first), stage("n", 1, last))
    bridge = pipeline(8, stage("n", 1, first), stage("a", 1, last))
    copies = (pipeline(4, stage("n", 1, whole)),) * 2
    across = (pipeline(4, stage("n", 1, whole)), pipeline(4, stage("a", 1, whole)))
    both = (pipeline(4, stage("n", 2, whole)),) * 2
    chunks = pipeline(4, stage("n", 1, (0, 3), (6, 8)), stage("n", 1, (3, 6), (8, UNITS)))
    there_and_back = pipeline(8, stage("n", 1, (0, 3), (8, UNITS)), stage("n", 1, (3, 8)))
    deep = pipeline(8, stage("n", 1, first, warmup=4), stage("n", 1, last, warmup=3))
    rows = pipeline(4, stage("n", 2, whole, sequence_parallel=True))
    hosted = pipeline(8, stage("n", 1, first, optimizer="host"), stage("n", 1, last, optimizer="host"))
    lines = (pipeline(4, stage("n", 1, first), stage("n", 1, last)),) * 2
    mixed = (pipeline(6, stage("n", 2, first), stage("a", 1, last)), pipeline(2, stage("n", 1, whole)))
    three = (*copies, pipeline(2, stage("a", 2, whole)))
    bf16, fp16 = Fields(precision="bfloat16"), Fields(precision="float16")
    large, tied = Fields(model=LARGE_VOCAB), Fields(model={"tie_embeddings": True})
    return [
        Case("one chip", (one,)),
        Case("one chip, bfloat16", (one,), **bf16),
        Case("one chip, large vocab", (one,), **large),
        Case("one chip, large vocab, bfloat16", (one,), **bf16, **large),
        Case("micro-batches of 4", (pipeline(8, stage("n", 1, whole), micro_batch=4),), **bf16),
        Case("tp 2", (two,)),
        Case(
            "tp 4, bfloat16, large vocab",
            (pipeline(4, stage("n", 4, whole)),),
            **bf16,
            model=LARGE_VOCAB | {"kv_heads": 4},
        ),
        Case("pp 2", (line,)),
        Case("pp 2, bfloat16", (line,), **bf16),
        Case("pp 2, gpipe", (line,), schedule="gpipe"),
        Case("pp 2, two chunks each", (chunks,)),
        Case("pp 2, tied", (line,), **tied),
        Case("dp 2", copies),
        Case("dp 2, bfloat16", copies, **bf16),
        Case("dp 2, small buckets, large vocab", copies, bucket_mib=0.25, **large),
        Case("dp 4, float16", copies * 2, **fp16),
        Case("tp 2, dp 2", both),
        Case("pp 2, dp 2, bfloat16", lines, **bf16),
        Case("pp over a bridge", (bridge,)),
        Case("pp over a bridge, bfloat16", (bridge,), **bf16),
        Case("pp over a bridge, int8", (bridge,), codec="int8"),
        Case("dp over a bridge", across),
        Case("dp over a bridge, float16", across, **fp16),
        Case("dp over a bridge, float16 beside float32", across, precisions={"a": "float16"}),
        Case("tp 2 to 1 over a bridge, and a copy", mixed),
        Case("tp 2 to 1 over a bridge, and a copy, bfloat16", mixed, **bf16),
        Case("two copies in one pool, tp 2 in the other", three, **bf16),
        Case("pp 2, zero-bubble, large vocab, bfloat16", (deep,), schedule="zero-bubble", **bf16, **large),
        Case("pp 2, v", (there_and_back,), schedule="v"),
        Case("tp 2, rows", (rows,)),
        Case("pp 2, optimizer in host memory, bfloat16", (hosted,), **bf16),
        *(Case(name, (_recomputed(way),), seq_len=512, **bf16) for way, name in RECOMPUTED.items()),
    ]


def _recomputed(way: str) -> PipelinePlan:
    return pipeline(8, stage("n", 1, (0, 6), recompute=way), stage("a", 1, (6, UNITS), recompute=way))


def held_out() -> list[Case]:
    """Others, that it was only asked about: another model and length, three families, other optimizers and shapes."""
    units = 2 * OTHER["layers"] + 2
    whole = (0, units)
    half = ((0, 4), (4, units))
    line = pipeline(6, *(stage("n", 1, part) for part in half))
    wide = pipeline(6, *(stage("n", 2, part) for part in half), micro_batch=2)
    families = pipeline(8, stage("n", 2, (0, 3)), stage("a", 2, (3, 6)), stage("k", 1, (6, units)))
    each = tuple(pipeline(2, stage(pool, 1, whole)) for pool in POOLS)
    chunks = pipeline(8, stage("n", 1, (0, 2), (4, 6)), stage("n", 1, (2, 4), (6, units)), micro_batch=2)
    some = pipeline(8, stage("n", 2, (0, 5), recompute={"full": 2, "selective": 2}), stage("a", 1, (5, units)))
    rows = stage("n", 2, half[0], sequence_parallel=True, tp_slices=2)
    sliced = pipeline(8, rows, stage("a", 2, half[1], sequence_parallel=True, tp_slices=2, optimizer="host"))
    quarters = pipeline(8, *(stage("n", 1, part) for part in ((0, 2), (2, 4), (4, 6), (6, units))))
    copies = (pipeline(4, stage("n", 1, whole), micro_batch=4),) * 3
    uneven = (pipeline(4, stage("n", 2, whole)), pipeline(2, stage("n", 1, whole)), pipeline(2, stage("k", 1, whole)))
    other, long = Fields(model=OTHER), Fields(model=OTHER, seq_len=160)
    bf16, fp16 = Fields(precision="bfloat16"), Fields(precision="float16")
    sgd = Fields(optimizer={"name": "sgd"})
    momentum = Fields(optimizer={"name": "sgd", "momentum": 0.9, "weight_decay": 0.1})
    return [
        Case("another model", (pipeline(4, stage("n", 1, whole)),), **other),
        Case("another model, long, micro-batches of 2", (wide,), **bf16, **long),
        Case("another model, gpipe, float16", (line,), schedule="gpipe", **fp16, **other),
        Case("another model, two chunks each", (chunks,), **long),
        Case("another model, pp 4", (quarters,), **bf16, **other),
        Case("three families in a line", (families,), **other),
        Case("three families in a line, gpipe, bfloat16, long", (families,), schedule="gpipe", **bf16, **long),
        Case("a pipeline of each family, float16", each, **fp16, **other),
        Case("dp 3, micro-batches of 4", copies, **other),
        Case("tp 2 and 1 in a pool, another family beside", uneven, **bf16, **other),
        Case("another model, tp 2, some units recomputed", (some,), **bf16, **long),
        Case("another model, interleaved, bfloat16", (chunks,), schedule="interleaved", **bf16, **long),
        Case("rows, slices, a host's optimizer, zero-bubble", (sliced,), schedule="zero-bubble", **bf16, **long),
        Case("SGD, dp 3", copies, **sgd, **bf16, **other),
        Case("SGD with momentum and decay", (line,), **momentum, **other),
    ]


def stand_in(variables: Mapping[str, str]) -> list[Case]:
    """Of a pool whose two chips are there, as far as torch_npu can tell. Sequences are short: attention is computed in
    the plain way there, and keeps what no chip's kernel does."""
    whole, half = (0, UNITS), ((0, 5), (5, UNITS))
    real, bf16 = Fields(real={"a": variables}, seq_len=16), Fields(precision="bfloat16")
    one, line = (
        pipeline(8, stage("a", 1, whole), micro_batch=4),
        pipeline(16, *(stage("a", 1, part) for part in half), micro_batch=4),
    )
    copies, two = (
        (pipeline(4, stage("a", 1, whole), micro_batch=4),) * 2,
        pipeline(8, stage("a", 2, whole), micro_batch=4),
    )
    bridge = pipeline(16, stage("a", 2, half[0]), stage("n", 1, half[1]), micro_batch=4)
    return [
        Case("one chip", (one,), **real),
        Case("one chip, bfloat16", (one,), **real, **bf16),
        Case("one chip, large vocab", (one,), **real, model=LARGE_VOCAB),
        Case("tp 2", (two,), **real),
        Case("tp 2, bfloat16", (two,), **real, **bf16),
        Case("pp 2", (line,), **real),
        Case("pp 2, bfloat16", (line,), **real, **bf16),
        Case("dp 2", copies, **real),
        Case("dp 2, bfloat16", copies, **real, **bf16),
        Case("tp 2 over a bridge, int8", (bridge,), **real, codec="int8"),
    ]
