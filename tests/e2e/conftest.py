"""A run that several modules look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.command import short_folder
from tests.e2e.fake_run import FakeRun


@pytest.fixture(scope="session")
def fake_run() -> Iterator[FakeRun]:
    with short_folder() as place:
        place.chmod(0o755)
        run = FakeRun(place)
        try:
            run.wait_for_steps()
            yield run
        finally:
            run.end()
