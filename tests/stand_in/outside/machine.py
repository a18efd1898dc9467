"""An environment with a distribution that brings chips of its own: the other files of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends import chip

HERE = Path(__file__).parent


def environment(**variables: str) -> dict[str, str]:
    """What a process with these variables needs to have it too."""
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), variables.get("PYTHONPATH"))))}


@contextmanager
def installed() -> Iterator[None]:
    """In this process."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(HERE))
        chip._sheets.cache_clear()
        yield
    chip._sheets.cache_clear()
