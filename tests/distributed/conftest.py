from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hetero.data.source import Prepared
from tests.distributed.fleet import Standing
from tests.distributed.text import every_byte


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return every_byte(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def fleet(text: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Ten ranks of three families, for all tests of this folder."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    with Standing(text, folder).up() as standing:
        yield standing
