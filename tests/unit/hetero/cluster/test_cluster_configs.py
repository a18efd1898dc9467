"""configs/clusters: every command is one that Ray takes, and the cluster that they make has a place for the job."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from backends.registry import FAMILIES
from hetero.cluster.options import fleet_of
from hetero.cluster.placement import Node, asks_of, place
from hetero.job.file.load import load_job
from tests.architecture.tree import ROOT
from tests.unit.hetero.cluster.ray_commands import hetero, ray_start

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
CLUSTERS = ROOT / "configs" / "clusters"
JOB = ROOT / "configs" / "runs" / "cluster.yaml"


def document(name: str, kind: str | None = None) -> Any:
    documents = yaml.safe_load_all((CLUSTERS / name).read_text())
    return next(one for one in documents if kind is None or one["kind"] == kind)


def node(name: str, labels: Mapping[str, str], resources: Mapping[str, Any]) -> Node:
    return Node(name, name, dict(labels), {"CPU": 64.0, **{key: float(value) for key, value in resources.items()}})


def labels_of(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split(",") if pair)


def by_hand() -> Iterator[Node]:
    for name, host in document("by-hand.yaml")["hosts"].items():
        options = ray_start(host["start"])
        counted = {"GPU": options["num_gpus"] or 0, **json.loads(options["resources"])}
        yield node(name, labels_of(options["labels"]), counted)


def kuberay() -> Iterator[Node]:
    spec = document("kuberay.yaml", "RayCluster")["spec"]
    for group in spec["workerGroupSpecs"]:
        for replica in range(group["replicas"]):
            yield node(f"{group['groupName']}-{replica}", group["labels"], group["resources"])


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [by_hand, kuberay])
def test_the_job_has_a_place(cluster: Any) -> None:
    job = load_job(JOB)
    fleet = fleet_of(job.pools, local=False)
    nodes = list(cluster())
    placed = place(asks_of(fleet), nodes)
    assert len(set(placed.values())) == len(fleet.hosts) == 4
    labels = {node.id: node.labels["family"] for node in nodes}
    assert {labels[id_] for host, id_ in placed.items() if host.startswith("kunlun")} == {"kunlun"}


def test_a_family_has_a_worker_group() -> None:
    groups = document("kuberay.yaml", "RayCluster")["spec"]["workerGroupSpecs"]
    assert [group["labels"]["family"] for group in groups] == [name for name in FAMILIES if name != "cpu"]
    for group in groups:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        plugin = next(amount for name, amount in limits.items() if "/" in name)
        counted = group["resources"][FAMILIES[group["labels"]["family"]].resource]
        assert int(counted) == plugin, "Ray counts what the device plugin gives"


def test_kuberay_s_groups_are_started_with_options_of_ray() -> None:
    spec = document("kuberay.yaml", "RayCluster")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert ray_start("ray start " + " ".join(f"--{key}={value}" for key, value in group["rayStartParams"].items()))
        elsewhere = {"num-cpus", "num-gpus", "memory", "resources", "labels"}
        assert not elsewhere & set(group["rayStartParams"]), "KubeRay refuses them beside the group's own fields"
        for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]:
            assert mount["name"] in {volume["name"] for volume in group["template"]["spec"]["volumes"]}


def test_the_ray_job_runs_a_command_of_ours() -> None:
    job = document("kuberay.yaml", "RayJob")["spec"]
    name = document("kuberay.yaml", "RayCluster")["metadata"]["name"]
    assert job["clusterSelector"] == {"ray.io/cluster": name}
    options = hetero(job["entrypoint"])
    assert options["address"] == "auto"
    assert options["job_file"].name == JOB.name


def test_ray_up_is_accepted_by_ray() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = document("ray-up.yaml")
    validate_config(prepare_config(config))
    for command in (*config["head_start_ray_commands"], *config["worker_start_ray_commands"]):
        if "ray start" in command:
            assert "RAY_AUTH_MODE=token" in command
            assert ray_start(command.replace('"$(cat /etc/hetero/resources.json)"', "'{\"KUNLUN\": 8}'"))
