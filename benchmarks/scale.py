"""What mixing costs at scale, in simulation: three families of chips, by model, number of chips and bridge.

    python -m benchmarks.scale [--json] [--chips 256 1024 8192] [--models 7B 70B ...] [--page docs/scale.md]

Nothing runs: chips are as their data sheets say, and plans are made by the rule of `benchmarks/scale_plans.py`, alone
and together. `MODEL_N_G` is the speed of N chips together over the sum of what each family does alone, where a host's
network to other families carries G Gbit/s each way; `_ideal` the same over all chips that never wait. 0 is where no
plan fits. `--page` writes the page with its plot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from time import perf_counter

from backends.chip import load_chip
from balancer.cost.times import datasheet_times
from balancer.cost.topology import LinkSpec, PoolSpec, Topology
from balancer.problem import Problem
from benchmarks.report import print_report
from benchmarks.scale_page import Point, write_page
from benchmarks.scale_plans import ruled
from hetero.models.dimensions import Dimensions
from hetero.models.hf_model import HfModel
from hetero.models.options import load_preset
from hetero.models.registry import architecture

MODELS = {
    "7B": load_preset("llama-7b"),
    "70B": load_preset("llama-70b"),
    "405B": Dimensions(family="llama", layers=126, hidden=16384, heads=128, kv_heads=8, ffn=53248, vocab=128256),
    "480B-A35B": HfModel.of({
        "model_type": "qwen3_moe", "num_hidden_layers": 62, "hidden_size": 6144, "num_attention_heads": 96,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 8192, "moe_intermediate_size": 2560,
        "num_experts": 160, "num_experts_per_tok": 8, "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "vocab_size": 151936, "max_position_embeddings": 262144, "rms_norm_eps": 1e-6,
        "rope_theta": 1e7, "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False,
    }),
}  # fmt: skip
"""Dense ones of 7, 70 and 405 billion parameters, and one of 480 whose tokens use 35."""
CHIPS = {"nvidia": "A800-80G", "ascend": "Ascend-910B2", "kunlun": "Kunlun-P800"}
PARTS = {"nvidia": 0.5, "ascend": 0.25, "kunlun": 0.25}
"""Of all chips."""
HOST, SEQ_LEN, PRECISION, LATENCY_S = 8, 4096, "bfloat16", 50e-6
BATCH = {256: 1024, 1024: 1024, 8192: 4096}
"""Sequences of a step by number of chips."""
GBIT_PER_S = 25, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--chips", type=int, nargs="+", default=list(BATCH))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--page", type=Path, help="write the page there, and its plot beside it")
    options = parser.parse_args()
    began = perf_counter()
    found = list(points(options.models, options.chips))
    if options.page:
        write_page(options.page, found)
    figures = {f"{point.model}_{point.chips}_{point.gbit_per_s}": point.efficiency for point in found}
    figures |= {f"{point.model}_{point.chips}_{point.gbit_per_s}_ideal": point.ideal for point in found}
    print_report("scale", figures | {"took_s": perf_counter() - began}, emulated=False, quiet=options.json)


def points(models: Sequence[str], sizes: Sequence[int]) -> Iterator[Point]:
    for model in models:
        for chips in sizes:
            alone = tuple(_alone(model, chips, name) for name in CHIPS)
            for gbit_per_s in GBIT_PER_S:
                yield Point(model, chips, gbit_per_s, ruled(problem(model, chips, gbit_per_s), HOST), alone)


def _alone(model: str, chips: int, name: str) -> float:
    """Tokens per second of one family; 0 where it cannot hold the model."""
    found = ruled(problem(model, chips, GBIT_PER_S[0]).only(frozenset({name})), HOST)
    return found.tokens_per_s if found else 0.0


def problem(model: str, chips: int, gbit_per_s: int) -> Problem:
    rate = gbit_per_s * 1e9 / 8
    pools = tuple(_pool(name, round(part * chips), rate) for name, part in PARTS.items())
    links = tuple(LinkSpec(ends, rate, LATENCY_S) for ends in combinations(CHIPS, 2))
    described = architecture(MODELS[model])
    work = described.workload(SEQ_LEN, BATCH.get(chips, 1024), PRECISION)
    topology = Topology(pools, links)
    return Problem(topology, work, datasheet_times(topology, work), described.legal_tp)


def _pool(name: str, count: int, network_bytes_per_s: float) -> PoolSpec:
    chip = load_chip(CHIPS[name])
    planned = PoolSpec(name, chip, count, HOST, chip.usable_bytes, precision=PRECISION)
    return replace(planned, network_bytes_per_s=network_bytes_per_s)


if __name__ == "__main__":
    main()
