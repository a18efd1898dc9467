"""A pool is told once: whoever needs to know of it holds what was told, and copies none of it field by field."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.tree import PACKAGES, name_of, parsed, python_files

FACTS = {"family", "chip", "count", "chips_per_host", "emulate", "emulated"}
"""What a pool is, by the names that its facts bear everywhere."""
NEED_THEIR_OWN = {
    "balancer/cost/topology.py": "PoolSpec",  # what a planner may know of its chips
    "hetero/cluster/options.py": "PoolOptions",  # what the job file says
    "hetero/monitoring/shapes.py": "_Pool",  # what a job file of others may say
    "hetero/words/pool.py": "Pool",  # what everybody else holds
}


def _classes_of_a_pool(path: Path) -> Iterator[str]:
    """Those that have two of its facts as fields of their own."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ClassDef):
            fields = {ast.unparse(line.target) for line in node.body if isinstance(line, ast.AnnAssign)}
            if len(fields & FACTS) > 1:
                yield node.name


def test_no_class_tells_a_pool_but_one_in_each_package_that_needs_its_own_facts() -> None:
    found = [(name_of(path), name) for path in python_files(*PACKAGES) for name in _classes_of_a_pool(path)]
    assert found == sorted(NEED_THEIR_OWN.items())
    assert len({file.rpartition("/")[0] for file in NEED_THEIR_OWN}) == len(NEED_THEIR_OWN)
