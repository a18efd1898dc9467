"""A covering set of models, plans and update rules for the laws of equal training.

Written short: `n2(0, 3)` is a stage of two nvidia chips that holds the units 0 to 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.plan.recompute import RecomputedUnits
from hetero.models.dimensions import Dimensions
from hetero.models.hf_model import HfModel
from hetero.models.tuning import EVERYTHING, LoraOptions, Tuning
from hetero.words.options import OptimizerOptions, TrainOptions
from tests.distributed.fleet import Job
from tests.tiny_models import tiny

SMALL = {"hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 42, "vocab": 257}
SGD = OptimizerOptions(name="sgd", lr=0.05)
MOMENTUM = OptimizerOptions(name="sgd", lr=0.05, momentum=0.9, warmup_steps=5)
GENTLE = MOMENTUM.model_copy(update={"lr": 0.02})
"""Over fifty steps MOMENTUM makes of a rounding error in the last bit one that a law would see."""
ADAMW = OptimizerOptions(lr=1e-3)
COSINE = OptimizerOptions(lr=1e-3, schedule="cosine", warmup_steps=5, weight_decay=0.1)

LORA = Tuning(lora=LoraOptions(rank=4, alpha=8.0))
SOME = RecomputedUnits(full=1, selective=2)


def _stage(pool: str, tp: int, *bounds: int, **by_hand: Any) -> StagePlan:
    chunks = tuple(zip(bounds[::2], bounds[1::2], strict=True))
    return StagePlan(pool=pool, tp=tp, units=chunks, **by_hand)


n1, n2, n4 = (partial(_stage, "nvidia", tp) for tp in (1, 2, 4))
a1, a2, a4 = (partial(_stage, "ascend", tp) for tp in (1, 2, 4))
ROWS = {"sequence_parallel": True}
k1, k2 = (partial(_stage, "kunlun", tp) for tp in (1, 2))


def pipeline(share: int, *stages: StagePlan, micro_batch: int = 1) -> PipelinePlan:
    return PipelinePlan(share=share, micro_batch=micro_batch, stages=stages)


def plan(*pipelines: PipelinePlan, schedule: str = "1f1b") -> Plan:
    return Plan(schedule=schedule, pipelines=pipelines)


@dataclass(frozen=True)
class Case:
    name: str
    plan: Plan
    job: Job


def case_of(
    name: str,
    *pipelines: PipelinePlan,
    layers: int = 2,
    schedule: str = "1f1b",
    optimizer: OptimizerOptions = SGD,
    steps: int = 3,
    precision: Any = "float32",
    precisions: dict[str, str] | None = None,
    tuning: Tuning = EVERYTHING,
    model: HfModel | None = None,
    **changes: Any,
) -> Case:
    dims = model or Dimensions(layers=layers, **{**SMALL, **changes})
    batch = sum(one.share for one in pipelines)
    common = {"precision": precision, "seed": 7, "optimizer": optimizer, "replica_check_every": 3}
    train = TrainOptions(steps=steps, global_batch=batch, **common, **vars(tuning))
    return Case(name, plan(*pipelines, schedule=schedule), Job(dims, train, precisions=precisions or {}))


CASES = (
    case_of("half a layer apart", pipeline(4, n1(0, 2), a1(2, 6))),
    case_of(
        "tp grows",
        pipeline(4, k1(0, 2, recompute="full"), n2(2, 3, recompute="selective"), a4(3, 6, recompute=SOME)),
    ),
    case_of("tp shrinks", pipeline(4, a4(0, 1), n2(1, 5), k1(5, 6)), vocab=258),
    case_of(
        "tp 4 next to 4, chips in another order",
        pipeline(4, n4(0, 3, chips=(2, 0, 3, 1)), a4(3, 6, chips=(3, 2, 1, 0)), micro_batch=2),
        vocab=263,
    ),
    case_of("five layers uneven", pipeline(6, n4(0, 7), a2(7, 10), k1(10, 12), micro_batch=3), layers=5),
    case_of("seven layers, two stages of a pool", pipeline(6, n2(0, 6), a1(6, 9), n1(9, 11), a2(11, 16)), layers=7),
    case_of(
        "chunks and tp mixed",
        pipeline(6, k1(0, 2, 8, 10, recompute=SOME), a4(2, 8, 10, 16, recompute="full"), micro_batch=2),
        layers=7,
    ),
    case_of(
        "20 and 12, owners and warm-up by hand",
        pipeline(20, n2(0, 3, warmup=4, owns=[(2, 3)]), a4(3, 6, owns=[(4, 5)]), micro_batch=4),
        pipeline(12, k2(0, 6, owns=[(0, 2), (3, 4), (5, 6)]), micro_batch=3),
    ),
    case_of(
        "20 and 12, five layers",
        pipeline(20, a4(0, 4), n4(4, 12), micro_batch=5),
        pipeline(12, k1(0, 7), k1(7, 12), micro_batch=2),
        layers=5,
    ),
    case_of("7, 2 and 1", pipeline(7, n4(0, 6)), pipeline(2, a4(0, 6), micro_batch=2), pipeline(1, k1(0, 6))),
    case_of(
        "7, 2 and 1 in stages",
        pipeline(7, n2(0, 5), a1(5, 12)),
        pipeline(2, n2(0, 8), k2(8, 12), micro_batch=2),
        pipeline(1, a2(0, 12)),
        layers=5,
        schedule="gpipe",
    ),
    case_of("a head for each key", pipeline(4, n4(0, 4), k2(4, 6)), kv_heads=4),
    case_of("one key for all heads", pipeline(4, a4(0, 2), n2(2, 6)), pipeline(2, k1(0, 6)), kv_heads=1),
    case_of("biases", pipeline(4, n4(0, 2), k2(2, 6)), pipeline(2, a2(0, 4), a1(4, 6)), qkv_bias=True),
    case_of("tied over two stages", pipeline(4, n2(0, 2), a4(2, 6)), tie_embeddings=True),
    case_of(
        "tied, apart and together",
        pipeline(4, k2(0, 2), a4(2, 6)),
        pipeline(2, n1(0, 6), micro_batch=2),
        tie_embeddings=True,
        optimizer=MOMENTUM,
    ),
    case_of("tied in two chunks", pipeline(4, a2(0, 3, 9, 12), n2(3, 9)), layers=5, tie_embeddings=True, kv_heads=1),
    case_of(
        "tied in three pipelines",
        pipeline(7, n2(0, 4, recompute="full"), k2(4, 12, recompute="selective")),
        pipeline(2, a4(0, 12), micro_batch=2),
        pipeline(1, n1(0, 5), n1(5, 12, recompute=SOME)),
        layers=5,
        tie_embeddings=True,
        qkv_bias=True,
        kv_heads=4,
        schedule="gpipe",
    ),
    case_of(
        "pools that add up their own first",
        pipeline(3, n1(0, 6)),
        pipeline(2, a1(0, 2), a1(2, 6)),
        pipeline(1, n1(0, 6)),
        pipeline(2, n2(0, 6), micro_batch=2),
        pipeline(2, a2(0, 6)),
        kv_heads=1,
    ),
    case_of(
        "optimizers in host memory",
        pipeline(3, n1(0, 3, optimizer="host"), n1(3, 6, optimizer="host")),
        pipeline(2, n2(0, 6)),
        pipeline(3, a2(0, 2, optimizer="host"), k2(2, 6)),
        tie_embeddings=True,
        optimizer=MOMENTUM,
        steps=4,
    ),
    case_of(
        "zero bubble",
        pipeline(8, n2(0, 5), a2(5, 9), k1(9, 12)),
        pipeline(2, a2(0, 12)),
        layers=5,
        schedule="zero-bubble",
    ),
    case_of(
        "there and back, tied, in bfloat16",
        pipeline(6, k1(0, 4), a4(4, 7), n2(7, 12)),
        layers=5,
        schedule="v",
        tie_embeddings=True,
        precision="bfloat16",
    ),
    case_of("again and again", pipeline(6, n2(0, 5), a2(5, 12)), layers=5, schedule="interleaved"),
    case_of(
        "bfloat16",
        pipeline(4, n2(0, 3, optimizer="host"), a4(3, 6, recompute="selective")),
        pipeline(4, k2(0, 6, recompute="full", optimizer="host")),
        precision="bfloat16",
    ),
    case_of(
        "float16",
        pipeline(4, n2(0, 3, recompute="full"), a4(3, 6)),
        pipeline(4, k2(0, 6, recompute="selective")),
        precision="float16",
    ),
    case_of(
        "float16 beside bfloat16 and float32",
        pipeline(4, n2(0, 3), a4(3, 6)),
        pipeline(4, k2(0, 6)),
        precision="bfloat16",
        precisions={"ascend": "float16", "kunlun": "float32"},
    ),
    case_of(
        "experts split, spread, and spread over rows",
        pipeline(4, n2(0, 3, experts="spread"), a2(3, 6, experts="spread", **ROWS)),
        pipeline(2, k2(0, 3, recompute="full"), a1(3, 6, recompute="selective"), micro_batch=2),
        schedule="zero-bubble",
        model=tiny("deepseek_v3", vocab_size=257, aux_loss_alpha=0.1),
    ),
    case_of("rows of the stream, tp grows", pipeline(4, k1(0, 2), n2(2, 3, **ROWS), a4(3, 6, **ROWS, tp_slices=3))),
    case_of(
        "rows of the stream, backwards in two actions",
        pipeline(4, n2(0, 3, **ROWS, tp_slices=2), a2(3, 6, **ROWS)),
        schedule="zero-bubble",
    ),
    case_of(
        "rows of the stream beside all of it, tied",
        pipeline(4, n4(0, 3, chips=(2, 0, 3, 1), **ROWS), a4(3, 6, chips=(3, 2, 1, 0), tp_slices=2), micro_batch=2),
        pipeline(2, k2(0, 6, **ROWS)),
        tie_embeddings=True,
        kv_heads=1,
    ),
    case_of(
        "adapters, tp 2, a cut in the middle",
        pipeline(4, n2(0, 3, **ROWS, tp_slices=3), a2(3, 6, recompute=SOME)),
        pipeline(2, k1(0, 6)),
        tuning=LORA,
        kv_heads=1,
    ),
    case_of(
        "adapters of some, backwards in two actions, tied, in bfloat16",
        pipeline(4, n2(0, 5, tp_slices=2), a4(5, 12, optimizer="host")),
        pipeline(2, k1(0, 12, recompute="full")),
        layers=5,
        schedule="zero-bubble",
        precision="bfloat16",
        tie_embeddings=True,
        tuning=Tuning(freeze=("units.[12].*",), lora=LoraOptions(rank=3, targets=("q", "v", "down"))),
    ),
    case_of(
        "adapters of latents and a shared expert, routers train also",
        pipeline(4, n2(0, 3, **ROWS), a2(3, 8, experts="spread")),
        pipeline(2, k1(0, 8)),
        tuning=Tuning(lora=LoraOptions(rank=3, train_also=("router*",))),
        model=tiny("deepseek_v2", vocab_size=257),
    ),
    case_of(
        "experts and routers frozen",
        pipeline(4, n2(0, 3), a2(3, 6)),
        pipeline(2, k1(0, 6)),
        tuning=Tuning(freeze=("experts.*", "router*", "norm*")),
        model=tiny("mixtral", vocab_size=257),
    ),
    case_of(
        "the first stage frozen, and the head",
        pipeline(4, n2(0, 3), a4(3, 6, recompute="selective")),
        pipeline(4, k1(0, 1), k1(1, 6, recompute="full")),
        tuning=Tuning(freeze=("embedding*", "units.1.*", "units.2.*", "head*", "*.o.weight", "attention.v.*")),
        qkv_bias=True,
    ),
    case_of(
        "long: tp 1, 2 and 4",
        pipeline(8, k1(0, 2), n2(2, 3), a4(3, 6), micro_batch=4),
        optimizer=COSINE,
        steps=50,
    ),
    case_of(
        "long: 20 and 12",
        pipeline(20, n2(0, 3), a2(3, 6), micro_batch=10),
        pipeline(12, k2(0, 6), micro_batch=6),
        steps=50,
    ),
    case_of(
        "long: tied, 7, 2 and 1",
        pipeline(7, n1(0, 3), k1(3, 6), micro_batch=7),
        pipeline(2, a2(0, 6), micro_batch=2),
        pipeline(1, n1(0, 6)),
        steps=50,
        tie_embeddings=True,
        optimizer=ADAMW,
    ),
    case_of(
        "long: two chunks on each stage",
        pipeline(4, n2(0, 3, 6, 9), a2(3, 6, 9, 12), micro_batch=2),
        steps=50,
        layers=5,
        optimizer=GENTLE,
    ),
    case_of(
        "tied, float16 beside float32",
        pipeline(4, k1(0, 2), a4(2, 6)),
        pipeline(2, n2(0, 6)),
        tie_embeddings=True,
        precisions={"ascend": "float16"},
    ),
    case_of(
        "long: bfloat16",
        pipeline(4, n2(0, 3), a1(3, 6), micro_batch=2),
        pipeline(2, k1(0, 6)),
        steps=50,
        precision="bfloat16",
        optimizer=ADAMW,
    ),
    case_of(
        "long: float16 beside bfloat16",
        pipeline(4, n2(0, 3), a1(3, 6), micro_batch=2),
        pipeline(2, a2(0, 6)),
        steps=50,
        precision="bfloat16",
        precisions={"ascend": "float16"},
        optimizer=ADAMW,
    ),
)


def find(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def pick(holds: Callable[[Case], bool]) -> list[Case]:
    return [case for case in CASES if holds(case)]
