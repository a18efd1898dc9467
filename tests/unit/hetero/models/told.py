"""What a model tells of itself, as plain data to compare: its units, tensors, cuts and costs.

`python -m tests.unit.hetero.models.told` writes the record beside this file anew: where a model is meant to change.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from balancer.cost.workload import UnitWork
from bridge.precision import ITEM_BYTES
from hetero.models.dimensions import Dimensions
from hetero.models.options import load_preset, preset_names
from hetero.models.registry import architecture

RECORD = Path(__file__).with_name("told.json")
SEQ_LEN, GLOBAL_BATCH = 192, 6
VARIED = Dimensions(
    layers=3, hidden=96, heads=12, kv_heads=2, ffn=130, vocab=259, tie_embeddings=True, qkv_bias=True, norm_eps=1e-6
)
OF_TUNED = ("frozen", "frozen_flops", "undivided")
"""Of a model that trains as a whole there are none."""
MODELS = {**{name: load_preset(name) for name in preset_names()}, "varied": VARIED}


def told(dims: Dimensions) -> dict[str, Any]:
    """Everything that planner, ranks and checkpoints read of a model; JSON's own types alone."""
    model = architecture(dims)
    work = model.workload(SEQ_LEN, GLOBAL_BATCH, "bfloat16")
    assert work.units == work.by_precision["bfloat16"]
    return {
        "units": "".join(unit.kind[0] for unit in model.units),
        "legal_cuts": len(model.legal_cuts),
        "boundary": dict(model.boundary),
        "tied": [list(pair) for pair in model.tied],
        "legal_tp": [tp for tp in range(1, 130) if model.legal_tp(tp) is None],
        "parameters": model.parameter_count,
        "tensors": {f"tp {tp}": _tensors(dims, tp) for tp in (1, 2, 4) if model.legal_tp(tp) is None},
        "work": {
            precision: {unit.kind: _costs(unit) for unit in work.by_precision[precision]} for precision in ITEM_BYTES
        },
    }


def _costs(unit: UnitWork) -> dict[str, Any]:
    assert not any(getattr(unit, name) for name in OF_TUNED)
    return asdict(unit, dict_factory=_recorded)


def _recorded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of masks all bytes together; none of these models has windows."""
    costs = {name: cost for name, cost in pairs if name not in OF_TUNED}
    if "masks" not in costs:  # of bytes on ranks
        return costs
    assert not costs.pop("plain_masks")
    return {"mask_bytes": sum(costs.pop("masks").values()), **costs}


def _tensors(dims: Dimensions, tp: int) -> dict[str, list[Any]]:
    """By name within the first unit of each kind; others of the kind must tell the same under their own number."""
    model, found = architecture(dims), {}
    for number, unit in enumerate(model.units):
        for name, spec in model.tensors(number, tp).items():
            layout = spec.layout
            common = spec.name.replace(f"units.{number}.", "*.")
            initial = [type(spec.initial).__name__, *asdict(spec.initial).values()]
            regions = [[list(bounds) for bounds in layout.region(position)] for position in range(layout.size)]
            row = [common, list(layout.shape), regions, layout.gradients, initial]
            assert found.setdefault(f"{unit.kind}: {name}", row) == row
    return found


if __name__ == "__main__":
    rows = (f"{json.dumps(name)}: {json.dumps(told(dims))}" for name, dims in MODELS.items())
    RECORD.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
