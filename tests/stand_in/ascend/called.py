"""Which of the vendor's names were called: `python -m tests.stand_in.ascend.called FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

FAMILIES = ("aclrt", "acl", "Hccl", "Msprof", "rt")


def called(path: Path) -> dict[str, list[str]]:
    """The names in a file that a run has written (ASCEND_STAND_IN_CALLS), by their beginnings."""
    found: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for name in sorted(set(path.read_text().split())):
        found[next(family for family in FAMILIES if name.startswith(family))].append(name)
    return found


if __name__ == "__main__":
    for family, names in called(Path(sys.argv[1])).items():
        print(f"{family}*: {len(names)}: {', '.join(names)}")
