"""Every YAML file that is shipped is loaded by the code that reads its kind, and every folder is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from backends.chip import load_chip
from hetero.job.file.load import load_job
from hetero.models.options import ModelOptions
from tests.architecture.tree import ROOT

CONFIGS = ROOT / "configs"
READERS = {
    "clusters": lambda path: list(yaml.safe_load_all(path.read_text())),  # tests/unit/hetero/cluster judges them
    "chips": lambda path: load_chip(path.stem),
    "models": lambda path: ModelOptions(preset=path.stem).resolve(),
    "runs": load_job,
}
FILES = sorted(CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_file_loads(path: Path) -> None:
    assert READERS[path.parent.name](path) is not None


def test_configs_hold_yaml_alone_and_every_kind() -> None:
    files = {path for path in CONFIGS.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files == set(FILES)
    assert {path.parent.name for path in files} == set(READERS)


def test_the_quickstart_shows_what_hetero_is_for() -> None:
    """Three families, tp of their own, both transports, an uneven cut, unequal shares, enough steps to learn."""
    job = load_job(CONFIGS / "runs" / "quickstart.yaml")
    pipelines = job.balance.pipelines or ()
    lengths = [[stop - start for stage in pipeline.stages for start, stop in stage.units] for pipeline in pipelines]
    assert len({pool.family for pool in job.pools.values()}) == 3
    assert {stage.pool for pipeline in pipelines for stage in pipeline.stages} == set(job.pools)
    assert len({pool.tp for pool in job.pools.values()}) > 1
    assert {job.bridge.transport_between(*link.between) for link in job.bridge.links} == {"grpc", "zmq"}
    assert any(len(set(cut)) > 1 for cut in lengths)
    assert len({pipeline.share for pipeline in pipelines}) > 1
    assert job.train.steps >= 35


def test_auto_is_the_quickstart_without_its_plan() -> None:
    by_hand, auto = (load_job(CONFIGS / "runs" / f"{name}.yaml") for name in ("quickstart", "auto"))
    assert auto.balance.mode == "auto"
    differ = {key for key in type(auto).model_fields if getattr(auto, key) != getattr(by_hand, key)}
    assert differ == {"name", "balance"}
