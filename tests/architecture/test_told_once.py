"""A pool and a plan are told once: whoever needs to know of them holds what was told, and copies none of it field by
field."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set

from tests.architecture.tree import PACKAGES, name_of, nodes, python_files

POOL = {"family", "chip", "count", "chips_per_host", "emulate", "emulated"}
"""What a pool is, by the names that its facts bear everywhere."""
NEED_THEIR_OWN = {
    "balancer/cost/topology.py": "PoolSpec",  # what a planner may know of its chips
    "hetero/cluster/options.py": "PoolOptions",  # what the job file says
    "hetero/monitoring/shapes.py": "_PoolShape",  # what a job file of others may say
    "hetero/words/pool.py": "Pool",  # what everybody else holds
}
PLAN = {"share", "micro_batch", "units", "tp", "owns"}


def _classes_that_tell(facts: Set[str]) -> Iterator[tuple[str, str]]:
    """File and name of those that have two of the facts as fields of their own."""
    for path in python_files(*PACKAGES):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                fields = {ast.unparse(line.target) for line in node.body if isinstance(line, ast.AnnAssign)}
                if len(fields & facts) > 1:
                    yield name_of(path), node.name


def test_no_class_tells_a_pool_but_one_in_each_package_that_needs_its_own_facts() -> None:
    assert dict(_classes_that_tell(POOL)) == NEED_THEIR_OWN
    assert len(list(_classes_that_tell(POOL))) == len(NEED_THEIR_OWN), "one in a file"
    assert len({file.rpartition("/")[0] for file in NEED_THEIR_OWN}) == len(NEED_THEIR_OWN), "and in a package"


def test_no_class_tells_a_plan_but_its_own() -> None:
    assert set(_classes_that_tell(PLAN)) == {
        ("balancer/plan/plan.py", "StagePlan"),
        ("balancer/plan/plan.py", "PipelinePlan"),
        ("hetero/words/orders.py", "TimedUnit"),  # no plan's: what was measured, and of what
    }
