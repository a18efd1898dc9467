"""Laws 1, 2 and 9 where strategies of a plan meet each other."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from hetero.data.source import Prepared
from tests.distributed.beside_plain import Record, trains_as_plain
from tests.distributed.cases import Case
from tests.distributed.covering import AXES, covering, rows
from tests.distributed.fleet import Standing


def test_every_two_strategies_meet() -> None:
    found = rows()
    for a, b in combinations(AXES, 2):
        met = {(str(row[a]), str(row[b])) for row in found}
        assert met == {(str(one), str(other)) for one in AXES[a] for other in AXES[b]}


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", covering(), ids=lambda case: case.name)
def test_strategies_train_as_plain(
    case: Case, fleet: Standing, text: Prepared, tmp_path: Path, record_property: Record
) -> None:
    trains_as_plain(case, fleet, text, tmp_path, record_property)
