from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from balancer.errors import NoPlanFits, PlanError
from bridge.codec import CODECS
from hetero.cluster.options import named_pools
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.links import ASSUMED_GBIT_PER_S
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.problem import topology, workload
from tests.architecture.tree import ROOT

RUNS = ROOT / "configs" / "runs"


def _job(name: str, *settings: str) -> Job:
    return load_job(Path(RUNS / f"{name}.yaml"), settings)


def test_a_link_is_as_the_job_file_says_in_either_order() -> None:
    link = topology(_job("auto")).link("ascend", "nvidia")
    assert link.bytes_per_s == 100e9
    assert link.latency_s == pytest.approx(2.5e-6)


def test_beside_emulated_chips_nobody_loses_seconds_by_the_shapes_of_kernels() -> None:
    mixed = _job("auto", "pools.ascend.emulate=null")
    assert not any(pool.shaped for pool in topology(mixed).pools)
    real = _job("auto", *(f"pools.{name}.emulate=null" for name in mixed.pools))
    assert topology(real).pool("ascend").shaped


def test_an_undescribed_link_is_unlimited_only_between_emulated_pools() -> None:
    emulated = topology(_job("auto", "bridge={}"))
    real = topology(_job("auto", "bridge={}", "pools.ascend.emulate=null"))
    assert emulated.link("nvidia", "ascend").bytes_per_s == math.inf
    assert real.link("nvidia", "kunlun").bytes_per_s == math.inf
    assert real.link("nvidia", "ascend").bytes_per_s == ASSUMED_GBIT_PER_S * 1e9 / 8


def test_networks_of_hosts_are_as_the_job_says_and_else_as_their_links() -> None:
    real = [f"pools.{name}.emulate=null" for name in ("nvidia", "ascend", "kunlun")]
    said = "pools.ascend.network_gbit_per_s=0.1", "pools.ascend.fabric_gbit_per_s=100"
    wide, narrow = _job("auto", *real), _job("auto", *real, *said)
    ascend, nvidia = (topology(narrow).pool(name) for name in ("ascend", "nvidia"))
    assert (ascend.network_bytes_per_s, ascend.fabric_bytes_per_s) == (0.1e9 / 8, 100e9 / 8)
    assert (nvidia.network_bytes_per_s, nvidia.fabric_bytes_per_s) == (100e9, None)
    across = plan_job(_job("quickstart")).plan
    wide_s, narrow_s = (plan_job(job, given=across).prediction.step_s for job in (wide, narrow))
    assert narrow_s > 1.1 * wide_s


def test_the_planner_knows_what_a_codec_leaves_of_each_direction() -> None:
    coded = _job("auto", "bridge.links[0].codec={activation: int8, gradient: bf16}")
    links = topology(coded).links
    (link,) = [one for one in links if set(one.between) == set(coded.bridge.links[0].between)]
    assert (link.activation_ratio, link.gradient_ratio) == (pytest.approx(0.25, abs=0.01), 0.5)
    assert all((one.activation_ratio, one.gradient_ratio) == (1, 1) for one in links if one is not link)


def test_what_an_emulated_chip_hides_does_not_reach_the_planner() -> None:
    told = _job("auto", "pools.ascend.emulate={speed: 0.5, memory_gib: 1}")
    assert topology(told) == topology(_job("auto"))


def test_a_plan_is_held_against_what_the_chips_have_free_once_they_have_said_it() -> None:
    job = _job("quickstart")
    assert topology(job).pool("ascend").memory_limit == "60.30 GiB by its data sheet, less the reserve"
    said = topology(job, usable_bytes={"ascend": 59 * 2**30})
    assert said.pool("ascend").memory_limit == "59.00 GiB by the chip itself"
    with pytest.raises(PlanError, match="MiB by the chip itself"):
        plan_job(job, usable_bytes={"ascend": 1000})


def test_the_search_too() -> None:
    with pytest.raises(NoPlanFits, match="MiB by the chip itself"):
        plan_job(_job("auto"), usable_bytes=dict.fromkeys(("nvidia", "ascend", "kunlun"), 1000))


def test_the_plan_by_hand_is_kept_completed_and_named() -> None:
    job = _job("quickstart")
    planned = plan_job(job)
    assert [pipeline.share for pipeline in planned.plan.pipelines] == [6, 8]
    assert planned.plan.job_fingerprint == job.fingerprint()
    assert all(stage.chips for pipeline in planned.plan.pipelines for stage in pipeline.stages)
    assert planned.memory_bytes(0, 0) > 0
    assert not planned.runners_up


def test_a_plan_that_is_given_beats_the_search() -> None:
    given = plan_job(_job("quickstart")).plan
    assert plan_job(_job("auto"), given=given).plan.pipelines == given.pipelines


def test_labels_say_what_is_emulated() -> None:
    labels = [str(pool) for pool in named_pools(_job("auto", "pools.kunlun.emulate=null").pools).values()]
    assert labels[0] == "nvidia (2 x A800-80G, emulated)"
    assert labels[2] == "kunlun (2 x Kunlun-P800)"


def test_a_pool_is_planned_in_its_own_precision() -> None:
    settings = ("pools.ascend.chip=Ascend-910A", "pools.ascend.precision=float16", "train.precision=bfloat16")
    job = _job("quickstart", *settings, "bridge.codec=int8")
    chips = topology(job)
    assert [pool.precision for pool in chips.pools] == ["bfloat16", "float16", "bfloat16"]
    assert chips.pool("ascend").flops_per_s == chips.pool("ascend").chip.flops_per_s("float16")
    assert {link.activation_ratio for link in chips.links} == {CODECS["int8"].estimate_ratio("float16")}
    planned = plan_job(job)
    assert planned.plan.precisions() == {"nvidia": "bfloat16", "ascend": "float16", "kunlun": "bfloat16"}
    wide = plan_job(_job("quickstart", "pools.ascend.chip=Ascend-910A"))
    assert planned.memory_bytes(0, 1) < wide.memory_bytes(0, 1)


@pytest.mark.slow
def test_a_pool_with_a_wider_precision_gets_less_work() -> None:
    def units(precision: str) -> int:
        job = _job("auto", "train.precision=bfloat16", f"pools.ascend.precision={precision}")
        pipelines = plan_job(job).plan.pipelines
        return sum(p.share * len(s.unit_indices()) for p in pipelines for s in p.stages if s.pool == "ascend")

    assert units("float32") < units("float16")


def test_a_job_that_saves_needs_its_state_once_more_in_its_hosts_memory() -> None:
    without, with_saves = (plan_job(_job("quickstart", f"checkpoint.every={every}")) for every in (0, 5))
    places = [place for place, _ in without.plan.stages()]
    assert [without.host_bytes(*place) for place in places] == [0] * len(places)
    chips = {place: stage.tp for place, stage in with_saves.plan.stages()}
    parameters = sum(unit.parameters for unit in with_saves.prediction.scenario.problem.workload.units)
    assert sum(with_saves.host_bytes(*place) * tp for place, tp in chips.items()) == pytest.approx(12 * parameters)


def test_records_of_bytes_are_planned_as_packed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    assert workload(_job("auto", f"data.source={tmp_path / 'a.jsonl'}")).packed
    assert not workload(_job("auto")).packed


def test_a_job_that_is_planned_again_does_not_look_for_its_data_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "leaves"
    (folder / "text").mkdir(parents=True)
    (folder / "text" / "a.jsonl").write_text('{"text": "a"}\n')
    monkeypatch.chdir(folder)
    job = _job("auto", "data.source=text")
    assert workload(job).packed
    shutil.rmtree(folder)
    assert workload(job.model_copy()).packed
