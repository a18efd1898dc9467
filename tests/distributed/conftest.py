from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hetero.data.source import Prepared
from tests.distributed.fleet import Standing
from tests.distributed.text import every_byte


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """The ranks need the cores, and the models are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return every_byte(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def fleet(text: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Ten ranks of three families, for all tests of this folder. They count what their moves of state hold."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    with Standing(text, folder).up(rank="tests.distributed.counted:main") as standing:
        yield standing
