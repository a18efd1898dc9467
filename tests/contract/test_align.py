"""`hetero align` against transformers, for every type that there is a family of."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.models.parts.attention import Attention
from hetero.models.registry import architecture, family_names
from hetero.models.tolerance import TOLERANCES
from tests.tiny_models import tiny
from tests.unit.hetero.align.planted import write

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", family_names())
def test_units_and_operators_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    """Judged by a tolerance of zero, units are looked into that do not differ, too."""
    from hetero.align.aligned import AlignOptions, aligned  # with transformers, slow to import

    folder, limits = write(tmp_path / "model", kind), TOLERANCES["float32"]
    found = aligned(folder, "transformers", AlignOptions(tolerance=0.0, samples=1, length=24))
    assert max(unit.whole.worst for unit in found.units) <= limits.whole
    assert max(unit.alone.worst for unit in found.units) <= limits.alone
    wrong = [(unit.number, name) for unit in found.units for name, error in unit.operators.items() if error > 1e-5]
    assert wrong in ([], [(0, "embedding")]), "which some types scale behind their module, and others in it"
    unit = architecture(tiny(kind)).units[1]
    looked_into = next(one for one in found.units if one.number == 1).operators
    assert {"attention", "o"} <= looked_into.keys()
    for part in unit.parts:
        if isinstance(part, Attention):
            assert {"q", "k", "v"} <= looked_into.keys()
            assert ("rotary q" in looked_into) is (part.rotary is not None)
            assert ("q_norm" in looked_into) is (part.norm is not None)
