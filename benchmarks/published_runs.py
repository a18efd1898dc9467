"""Runs that others published: rows, and how each one's model lies on its chips."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from balancer.plan.recompute import Recompute

PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_EARLY = "Megatron-LM", "Megatron-DeepSpeed"
"""Frameworks as they were in 2021 and 22: all collectives in the open, and, where a row names no kernel of attention,
its whole square in memory. Later ones hide a backward's collectives and keep rows of the stream apart."""
_SLICED = "Megatron-Core", "NeMo", "Megatron-Kwai"
"""Frameworks that hide a forward's collectives as well, behind slices of the products that they follow."""
_BALANCED = "nanotron"
"""Frameworks that cut a model by work, the head's counted, and not into as many layers each."""
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
    if run.row.get("precision") not in PRECISIONS:
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
