"""Numbers that pass for any section and that no run could use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hetero.job.errors import JobError
from hetero.job.file.reading import KeyPath, dotted

LARGEST = 10**15


def check_numbers(given: Any, taken: Any, path: KeyPath = ()) -> None:
    """Compares the job as it was written with what it was taken for. Raises JobError for a number that is infinite, no
    number or beyond all measure, and for a yes or no that was taken for one."""
    if isinstance(taken, Mapping):
        for key, value in taken.items():
            check_numbers(given.get(key) if isinstance(given, Mapping) else None, value, (*path, key))
    elif isinstance(taken, (list, tuple)):
        items = given if isinstance(given, list) and len(given) == len(taken) else [None] * len(taken)
        for index, (item, value) in enumerate(zip(items, taken, strict=True)):
            check_numbers(item, value, (*path, index))
    elif isinstance(taken, (int, float)) and not isinstance(taken, bool):
        if isinstance(given, bool):
            raise JobError(dotted(path), str(given).lower(), "should be a number", "write the number")
        if not -LARGEST <= taken <= LARGEST:
            rule = f"must be a number of at most {LARGEST:.0e} either way"
            raise JobError(dotted(path), str(taken), rule, "use a smaller one, or leave the key out")
