"""What `hetero plan` answers beside the plan: why, what a pool adds, which of two, and what if."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from hetero.cli.app import run

JOB = {
    "model": {"dimensions": {"family": "llama", "layers": 2, "hidden": 64, "heads": 4, "kv_heads": 4, "ffn": 172,
                             "vocab": 257}},
    "data": {"seq_len": 64},
    "train": {"steps": 4, "global_batch": 16},
    "pools": {
        "fast": {"family": "cuda", "chip": "A800-80G", "count": 2, "emulate": {}},
        "slow": {"family": "kunlun", "chip": "Kunlun-P800", "count": 1, "emulate": {}},
    },
    "bridge": {"links": [{"between": ["fast", "slow"], "gbit_per_s": 400, "rtt_ms": 0.0}]},
}  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> str:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    return str(tmp_path / "job.yaml")


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_why_a_plan_was_chosen_sums_to_what_its_step_loses(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = _json(capsys, job)
    lost_s = (1 - told["prediction"]["efficiency"]["efficiency_vs_ideal"]) * told["prediction"]["step_s"]
    assert sum(told["why"]["seconds"].values()) == pytest.approx(lost_s)
    assert len(told["why"]["losses"]) == 1 + len(told["runners_up"])
    assert told["why"]["certificate"]["bound_s"] <= told["prediction"]["step_s"]
    assert run(["plan", job, "--explain"]) == 0
    said = capsys.readouterr().out
    assert "what binds it: " in said
    assert said.count("  next: ") == min(3, len(told["runners_up"]))


def test_a_pool_is_worth_what_the_job_is_slower_without_it(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = {one["pool"]: one for one in _json(capsys, job, "--worth")["worth"]}
    step_s = _json(capsys, job)["prediction"]["step_s"]
    without_s = _json(capsys, job, "--set", "pools.slow=null", "--set", "bridge.links=[]")["prediction"]["step_s"]
    assert told["slow"]["adds"] == pytest.approx(without_s / step_s - 1)
    assert told["fast"]["worth_it"]
    far = ["--set", "bridge.links[0].gbit_per_s=0.001"]
    assert run(["plan", job, "--worth", *far]) == 0
    assert "leave it out (--set pools." in capsys.readouterr().out


def test_two_plans_differ_where_they_were_made_to(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = _json(capsys, job, "--set", "pools.slow=null", "--set", "bridge.links=[]")["plan"]
    files = tmp_path / "a.json", tmp_path / "b.json"
    files[0].write_text(json.dumps(plan))
    for pipeline in plan["pipelines"]:
        for stage in pipeline["stages"]:
            stage["recompute"] = "full"
    files[1].write_text(json.dumps(plan))
    told = _json(capsys, job, "--compare", *map(str, files))
    assert {one["key"].rpartition(".")[2] for one in told["differences"]} == {"recompute"}
    assert {(one["first"], one["second"]) for one in told["differences"]} == {(None, "full")}
    assert told["second_is_faster_by"] == pytest.approx(1 - told["second"]["step_s"] / told["first"]["step_s"])
    assert told["second_is_faster_by"] < 0
    assert run(["plan", job, "--compare", *map(str, files)]) == 0
    assert "a.json is faster" in capsys.readouterr().out.replace("\n", "")
    assert run(["plan", job, "--compare", str(files[0]), str(files[0])]) == 0
    assert "the same" in capsys.readouterr().out


@pytest.mark.slow
def test_what_if_is_the_plan_of_the_job_with_these_values(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--what-if", "pools.fast.count=1,2", "--what-if", "links.slow-fast.gbit_per_s=1,400"]
    told = _json(capsys, job, *asked, "--plot", str(tmp_path / "if.svg"))
    assert [one["settings"] for one in told["variants"]] == [
        [f"pools.fast.count={count}", f"links.slow-fast.gbit_per_s={rate}"] for count in (1, 2) for rate in (1, 400)
    ]
    same = _json(capsys, job, "--set", "pools.fast.count=2", "--set", "bridge.links[0].gbit_per_s=400")
    assert told["variants"][3]["step_s"] == same["prediction"]["step_s"]
    assert told["now"]["step_s"] == _json(capsys, job)["prediction"]["step_s"]
    drawn = ElementTree.fromstring((tmp_path / "if.svg").read_text())
    assert sum(found.tag.endswith("rect") for found in drawn) == 1 + 5


def test_values_that_no_job_may_have_are_variants_without_a_plan(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", job, "--what-if", "pools.fast.tp=2,4"]) == 0
    said = capsys.readouterr().out
    assert "no plan: pools.fast.tp: " in said
    told = _json(capsys, job, "--what-if", "bridge.links[0].codec=int8,{activation: int8, gradient: bf16}")
    assert len(told["variants"]) == 2


NOT_ASKED = [
    (["--what-if", "pools.fast.cuont=2"], "did you mean 'count'"),
    (["--plot", "x.svg"], "add --what-if"),
    (["--compare", "/nowhere/a.json", "b.json"], "must be a readable file"),
]
NOR_THESE = [
    (["--what-if", "links.fast-slwo.gbit_per_s=2"], "fast-slow"),
    (["--what-if", "pools.fast.count"], "key=value"),
    (["--what-if", "train.seed=" + ",".join(map(str, range(300)))], "at most 256"),
    (["--what-if", "train.seed=1", "--plot", "/nowhere/x.svg"], "must be writable"),
    (["--compare", "a.json", "b.json", "--what-if", "train.seed=1"], "leave one of both out"),
    (["--compare", "file://server/share", "b.json"], "--compare"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), [*NOT_ASKED, *(pytest.param(*one, marks=pytest.mark.slow) for one in NOR_THESE)]
)
def test_what_cannot_be_asked_is_told(
    job: str, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", job, *arguments]) == 2
    assert says in capsys.readouterr().err
