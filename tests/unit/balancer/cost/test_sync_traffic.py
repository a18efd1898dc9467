"""What pipelines owe each other, and when it is paid."""

from __future__ import annotations

import pytest

from balancer.completion.completion import complete
from balancer.cost.sync_traffic import buckets
from balancer.cost.times import datasheet_times
from balancer.cost.topology import Topology
from balancer.problem import Problem
from balancer.simulate.simulate import Scenario, run
from tests.unit.balancer.cases import plan, pool, topology, unit, workload

MB = 1e6  # a second on the slow link


def completed(chips, work, *pipelines):
    return complete(plan(*pipelines), Problem(chips, work))


def predict(chips, work, *pipelines, bucket_bytes=1):
    chips = Topology(chips.pools, chips.links, bucket_bytes)
    return run(Scenario(completed(chips, work, *pipelines), Problem(chips, work, datasheet_times(chips, work))))


def test_buckets_close_when_they_are_full_and_keep_routes_apart():
    items = [("x", 1), ("y", 2), ("x", 2), ("y", 1), ("x", 1)]
    found = buckets(items, lambda item: item[0], lambda item: item[1], 3)
    assert found == [[("x", 1), ("x", 2)], [("y", 2), ("y", 1)], [("x", 1)]]


def test_a_gradient_crosses_once_however_many_pipelines_a_pool_has():
    chips, work = topology(pool("a", 1), pool("b", 3), bytes_per_s=MB), workload(1, batch=4, parameters=1_000_000)
    one, three = [("a", 1, (0, 1))], [("b", 1, (0, 1))]
    sync_s = predict(chips, work, (1, one), *[(1, three)] * 3).sync_s
    assert sync_s == pytest.approx(4 + 4, rel=1e-3)  # 4 MB of gradients, 4 MB of parameters


def test_gradients_leave_while_earlier_units_compute():
    """Four units of 4 MB behind one without parameters, each with a forward of 2 s and a backward of 4 s; either
    pipeline owns two. Parameters return while later units compute, too."""
    chips = topology(pool("a", 1), pool("b", 1), bytes_per_s=MB)
    units = [unit("x", gflops=2000, parameters=0)] + [unit("x", gflops=2000, parameters=1_000_000)] * 4
    work = workload(units, batch=2)
    whole = [(1, [("a", 1, (0, 5))]), (1, [("b", 1, (0, 5))])]
    early, late = (predict(chips, work, *whole, bucket_bytes=n) for n in (1, 10**9))
    assert early.compute_s == late.compute_s
    assert early.sync_s < late.sync_s
    assert late.sync_s == pytest.approx(8 - 4 + 8 - 2, rel=1e-3)  # units 1 and 3 together, while unit 0 computes
    assert early.sync_s == pytest.approx(4 - 4 + 4 - 2, rel=1e-3)  # unit 1 alone


def test_what_a_pool_adds_up_is_passed_on_when_its_hub_has_computed_all():
    chips, work = topology(pool("a", 1), pool("b", 2), bytes_per_s=MB), workload(4, batch=3, parameters=1_000_000)
    written = [(1, [("a", 1, (0, 4))]), (1, [("b", 1, (0, 4))]), (1, [("b", 1, (0, 4))])]
    owners = completed(chips, work, *written)
    given = [u for p in owners.pipelines if p.stages[0].pool == "a" for u in p.stages[0].owned_units()]
    assert predict(chips, work, *written).sync_s >= 4 * len(given)
