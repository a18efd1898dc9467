"""Whether frozen weights keep the bits that their directory has: only what trains has a float32 master."""

from __future__ import annotations

from balancer.plan.plan import Plan
from hetero.huggingface.errors import HfError
from hetero.job.job import Job
from hetero.models.adapter import is_adapter
from hetero.models.architecture import Architecture
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture
from hetero.models.stored_weights import StoredWeights

_EXACT = {"float32": {"float32", "bfloat16", "float16"}}
"""By what a pool computes in, the types that it keeps every bit of, where these are more than that one."""


def rounding_notes(job: Job, plan: Plan) -> list[str]:
    """In words; nothing of a directory whose weights cannot be read here, which is refused where they are needed."""
    if job.model.weights is None:
        return []
    model = job.model.resolve()
    assert isinstance(model, HfModel)
    held = _precisions(architecture(model, job.train.tuning), plan)
    try:
        stored = StoredWeights(model, job.model.folder())
        rounded = [name for name, precisions in held.items() if not _types(stored, name) <= precisions]
    except HfError:
        return []
    if not rounded:
        return []
    more = f" and {len(rounded) - 1} more" if len(rounded) > 1 else ""
    return [
        f"{rounded[0]}{more} are frozen, and no pool that holds them computes in what {job.model.weights} has them in: "
        "they stay rounded in checkpoints and exports"
    ]


def _precisions(model: Architecture, plan: Plan) -> dict[str, set[str]]:
    """By frozen tensor, the types that its holders' values are exact in."""
    found, computed = dict[str, set[str]](), plan.precisions()
    for _, stage in plan.stages():
        precision = computed[stage.pool]
        for unit in stage.unit_indices():
            for spec in model.tensors(unit, 1).values():
                if not (spec.trains or is_adapter(spec.name)):
                    found.setdefault(spec.name, set()).update(_EXACT.get(precision, {precision}))
    return found


def _types(stored: StoredWeights, name: str) -> set[str]:
    """That the directory has a tensor in."""
    known = (stored.folder.tensors.get(stored.names[one]) for one in stored.map.foreign_of(name))
    return {one.dtype for one in known if one is not None}
