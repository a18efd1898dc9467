"""What the ranks of a plan wrote does not make up a model: it is said of which tensor or unit, and whose it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from balancer.plan.plan import Plan
from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.align.captured import captured_gradients
from hetero.align.errors import AlignError
from hetero.align.planned import _put_together
from hetero.align.seen_units import VALUE, SeenStep, key, write_seen
from hetero.checkpoint.pieces import write_piece

NAME, A, B = "units.1.q.weight", RankId("nvidia", 0), RankId("ascend", 1)


def _wrote(folder: Path, rank: RankId, rows: tuple[int, int]) -> None:
    """Of a tensor of 4 rows, these, as if others had the rest."""
    cuts = [cut for cut in ((0, rows[0]), (rows[1], 4)) if cut[0] < cut[1]]
    layout = TensorLayout((4, 2), tuple((cut, (0, 2)) for cut in (rows, *cuts)))
    path = folder / "step-00000000" / f"{rank.pool}-{rank.index}.safetensors"
    piece = write_piece(path, rank, {NAME: {"gradient": torch.ones(rows[1] - rows[0], 2)}}, {NAME: (layout, 0)})
    path.with_suffix(".json").write_text(piece.model_dump_json())


@pytest.mark.parametrize(
    ("second", "said"), [((1, 3), "2 have no owner and 2 have several"), ((1, 4), "0 have no owner and 2 have several")]
)
def test_elements_without_one_owner_are_told_with_those_who_gave_any(
    tmp_path: Path, second: tuple[int, int], said: str
) -> None:
    _wrote(tmp_path, A, (0, 2))
    _wrote(tmp_path, B, second)
    with pytest.raises(AlignError, match=rf"{NAME}.*{said}, among {B}, {A}"):
        captured_gradients(tmp_path, step=0)


def test_a_unit_whose_parts_do_not_make_it_up_is_told_with_its_pools(tmp_path: Path) -> None:
    stages = [{"pool": "nvidia", "tp": 1, "units": [0, 1], "chips": [0]}]
    plan = Plan.model_validate({"pipelines": [{"share": 2, "micro_batch": 2, "stages": stages}]})
    write_seen(tmp_path, A, {key(0, 0, VALUE): torch.ones(2, 3, 4)})
    with pytest.raises(AlignError, match=r"unit 0': its value, as nvidia tp 1 gave it, does not make up \[2, 3, 8\]"):
        _put_together(SeenStep(tmp_path, plan), 0, VALUE, (2, 3, 8))
