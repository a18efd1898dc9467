"""What a checkpoint holds, for people: by its manifest and the headers of its pieces. Torch-free."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from balancer.errors import PlanError
from balancer.plan.plan import Plan
from hetero.checkpoint.address import Location
from hetero.checkpoint.store import CheckpointStore
from hetero.foreign import open_plain

_MOST_HEADER_BYTES = 100 << 20


@dataclass(frozen=True)
class Summary:
    """`tensors` are logical ones with their shapes, `elements` counts those of each kind of state, `dtypes` how many
    are stored in which type. `directory_bytes` are those of the model's directory beside it, 0 where there is none.
    `plan` is empty where none was saved that this version reads."""

    step: int
    updates: int
    consumed_sequences: int
    consumed_tokens: int
    pieces: int
    bytes: int
    directory_bytes: int
    tensors: dict[str, tuple[int, ...]]
    elements: dict[str, int]
    dtypes: dict[str, int]
    plan: str
    job_fingerprint: str

    @classmethod
    def of(cls, store: CheckpointStore, step: int) -> Summary:
        """Raises CheckpointError where there is no such checkpoint."""
        manifest = store.manifest(step)
        elements, dtypes = Counter[str](), Counter[str]()
        shapes: dict[str, tuple[int, ...]] = {}
        for piece in manifest.pieces:
            for name, stored in piece.tensors.items():
                shapes[name] = stored.shape
                held = prod(stop - start for start, stop in stored.region)
                elements.update(dict.fromkeys(stored.kinds, held))
            dtypes.update(_dtypes(store.folder(step) / piece.file))
        run = manifest.run
        return cls(
            step=step,
            updates=run.updates,
            consumed_sequences=run.consumed_sequences,
            consumed_tokens=run.consumed_tokens,
            pieces=len(manifest.pieces),
            bytes=sum(piece.size_bytes for piece in manifest.pieces),
            directory_bytes=sum(told.size_bytes for told in manifest.directory),
            tensors=dict(sorted(shapes.items())),
            elements=dict(elements),
            dtypes=dict(dtypes),
            plan=_plan(run.plan),
            job_fingerprint=run.job_fingerprint,
        )

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def _dtypes(piece: Location) -> list[str]:
    """Of the tensors in a piece, by its header; none of what is no piece: `verify` says that."""
    try:
        with open_plain(piece) if isinstance(piece, Path) else piece.open() as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), _MOST_HEADER_BYTES)))
        told = [tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
    return [dtype for dtype in told if isinstance(dtype, str)]


def _plan(saved: dict[str, Any]) -> str:
    """Such as "1f1b: nvidia tp2 > ascend tp4 | kunlun tp1"."""
    try:
        plan = Plan.model_validate(saved)
    except (ValueError, PlanError):
        return ""
    pipelines = (" > ".join(f"{stage.pool} tp{stage.tp}" for stage in one.stages) for one in plan.pipelines)
    return f"{plan.schedule}: {' | '.join(pipelines)}"
