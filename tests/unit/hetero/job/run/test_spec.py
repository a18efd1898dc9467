"""What ranks are told of a job is what its plan was made by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hetero.cluster.options import fleet_of
from hetero.data.source import Prepared
from hetero.engine.expected import topology_of
from hetero.job.file.load import load_job
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.problem import topology
from hetero.job.run.spec import run_spec
from tests.architecture.tree import ROOT

ODD_POOLS = ("pools.ascend.chips_per_host=2", "pools.ascend.tp=2", "pools.kunlun.emulate={precision: float16}")


def test_ranks_reckon_with_the_pools_that_the_plan_was_made_for() -> None:
    job = load_job(ROOT / "configs" / "runs" / "auto.yaml", ODD_POOLS)
    text = Prepared(Path("tokens.bin"), "5e", 257, 1000, 1.0)
    spec = run_spec(job, fleet_of(job.pools), plan_job(job).plan, text, 1.0)
    precisions = {name: job.precision_of(name) for name in job.pools}
    planned = tuple(replace(pool, tp=None) for pool in topology(job).pools)
    assert topology_of(spec.pools, precisions).pools == planned, "but for the tp that bound the plan, which has it"
