"""docs/cluster.md: its commands are ones that Ray and hetero take, its job loads and has a place on its cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hetero.cluster.options import fleet_of
from hetero.cluster.placement import Node, PlacementError, asks_of, place
from hetero.errors import render
from hetero.job.file.load import load_job
from tests.architecture.tree import ROOT
from tests.unit.hetero.cluster.ray_commands import hetero, ray, ray_start

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
TEXT = (ROOT / "docs" / "cluster.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def lines(program: str) -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line.startswith(program)]


def nodes() -> list[Node]:
    found = []
    for line in lines("ray start"):
        options = ray_start(line)
        family = options["labels"].removeprefix("family=")
        resources = {"CPU": 64.0, "GPU": float(options["num_gpus"] or 0), **json.loads(options["resources"])}
        found.append(Node(options["node_ip_address"], family, {"family": family}, resources))
    return found


def test_the_job_has_a_place_on_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(blocks("yaml")[0])
    job = load_job(tmp_path / "job.yaml")
    assert place(asks_of(fleet_of(job.pools, local=False)), nodes()) == {
        "nvidia@0": "10.0.0.11",
        "ascend@0": "10.0.0.21",
    }


def test_the_refusal_that_is_shown_is_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(blocks("yaml")[0])
    job = load_job(tmp_path / "job.yaml")
    there = [
        Node("0", "head (10.0.0.1)", {"family": "none"}, {"CPU": 64}),
        Node("1", "a (10.0.0.11)", {"family": "cuda"}, {"GPU": 8}),
        Node("2", "b (10.0.0.21)", {"family": "ascend"}, {"NPU": 4}),
    ]
    with pytest.raises(PlacementError) as caught:
        place(asks_of(fleet_of(job.pools, local=False)), there)
    assert render(caught.value) == blocks("text")[0].rstrip("\n")


@pytest.mark.parametrize("line", lines("hetero"))
def test_commands_are_for_this_cluster(line: str) -> None:
    assert "10.0.0.1" in hetero(line)["address"]


@pytest.mark.parametrize("line", lines("ray"))
def test_ray_takes_the_line(line: str) -> None:
    ray(line)


def test_there_is_one_job_and_one_refusal() -> None:
    assert len(blocks("yaml")) == len(blocks("text")) == 1
