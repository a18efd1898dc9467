"""Files for their owner's eyes: what a run records of a job, its text and its model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """What this process and its children make inside is their user's alone (0700, 0600); a stricter umask stays. What
    is there already keeps its mode."""
    before = keep_private()
    try:
        yield
    finally:
        os.umask(before)


def keep_private() -> int:
    """The same for good; returns the umask before."""
    before = os.umask(0o077)
    os.umask(before | 0o077)
    return before
