"""Pools that leave it to their chips to say what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends import probe
from backends.probe import Detection
from hetero.cli.app import run
from hetero.cluster.onray.chips import together
from hetero.job.doctor import examine_job, name_chips
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.planning.chips import identified
from tests.unit.hetero.cluster.doctor.machines import GOOD

JOB = """\
model: {dimensions: {layers: 1, hidden: 64, heads: 4, kv_heads: 4, ffn: 64, vocab: 512}}
data: {source: python-stdlib, seq_len: 32}
train: {steps: 1, global_batch: 8}
pools:
  mine: {family: cuda, count: 2}
  spare: {family: cpu, count: 1}
"""
H200 = Detection("cuda", 2, (), names=("NVIDIA H200",))


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path / "job.yaml"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []

    def ask(*arguments: Any) -> Detection:
        asked.append(arguments)
        return H200

    monkeypatch.setattr(probe, "ask", ask)
    return asked


def test_the_cpu_needs_no_name_and_nobody_is_asked(job_file: Path, asked: list[Any]) -> None:
    job = load_job(job_file, ["pools={spare: {family: cpu, count: 1}}"])
    assert job.pools["spare"].chip == "cpu"
    assert identified(job) is job
    assert asked == []


def test_real_chips_say_it_themselves(job_file: Path, asked: list[Any]) -> None:
    job = load_job(job_file, ["pools.mine.env={python: /opt/python, vars: {CUDA_VISIBLE_DEVICES: '1'}}"])
    assert job.unidentified == ("mine",)
    named = identified(job)
    assert named.pools["mine"].chip == "H200"
    assert not named.unidentified
    assert asked == [("cuda", "/opt/python", {"CUDA_VISIBLE_DEVICES": "1"})], "as the pool's own processes would be"
    assert load_job(job_file, ["pools.mine.chip=auto"]).unidentified == ("mine",)


def test_what_depends_on_the_chip_is_checked_once_it_is_known(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = load_job(job_file, ["pools.mine.family=ascend", "pools.mine.precision=bfloat16"])
    monkeypatch.setattr(probe, "ask", lambda *_: Detection("ascend", 2, (), names=("Ascend910A",)))
    with pytest.raises(JobError, match="bfloat16"):
        identified(job)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Detection("cuda", 0, (), "torch lacks CUDA"), ("torch lacks CUDA", "name it, which is one of A100-80G")),
        (Detection("cuda", 2, (), names=("NVIDIA B200",)), ("'NVIDIA B200'", "no data sheet of family cuda", "H200")),
        (Detection("cuda", 2, (), names=("NVIDIA H20", "NVIDIA H200")), ("a pool is of equal chips",)),
    ],
)
def test_chips_that_do_not_say_it_are_one_screen(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: Detection, words: Any
) -> None:
    monkeypatch.setattr(probe, "ask", lambda *_: found)
    for command in ("plan", "train"):
        assert run([command, str(job_file)]) == 2
        screen = capsys.readouterr().err
        assert f"{job_file}:5: pools.mine.chip" in screen
        for word in words:
            assert word in screen


@pytest.mark.parametrize("family", ["cuda", "cpu"])
def test_emulated_chips_need_a_name(job_file: Path, capsys: pytest.CaptureFixture[str], family: str) -> None:
    assert run(["plan", str(job_file), "--set", f"pools.mine={{family: {family}, count: 2, emulate: {{}}}}"]) == 2
    screen = capsys.readouterr().err
    assert "pools.mine.chip" in screen
    assert "a chip that is emulated cannot say what it is" in screen
    assert ("H200" if family == "cuda" else "cpu") in screen


def test_the_plan_is_by_the_chip_that_was_told(
    job_file: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(job_file)]) == 0
    assert "a chip of mine has 139.00 GiB" in capsys.readouterr().out


def test_the_doctor_tells_what_it_took_and_what_differs(job_file: Path, asked: list[Any]) -> None:
    job, told = name_chips(load_job(job_file))
    assert [(one.level, one.check, one.value) for one in told] == [("ok", "pools.mine.chip", "H200")]
    assert "NVIDIA H200" in told[0].rule
    machine = replace(GOOD, chips=[H200])
    assert not any(one.check == "pools.mine.chip" for one in examine_job(job, machine, Path("runs")))
    other = load_job(job_file, ["pools.mine.chip=H100"])
    [wrong] = [one for one in examine_job(other, machine, Path("runs")) if one.check == "pools.mine.chip"]
    assert (wrong.level, wrong.value, wrong.remedy) == ("warning", "H100", "name H200, or leave it out")


def test_the_doctor_goes_on_where_chips_do_not_say_it(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ask", lambda *_: Detection("cuda", 0, (), "torch lacks CUDA"))
    job, [told] = name_chips(load_job(job_file))
    assert (told.level, told.check) == ("error", "pools.mine.chip")
    checks = {one.check for one in examine_job(job, GOOD, Path("runs"))}
    assert "plan" not in checks
    assert "data.source" in checks
    job, [told] = name_chips(job, None)
    assert (told.level, told.value) == ("ok", "auto")


def test_all_hosts_of_a_pool_have_the_same_chips() -> None:
    assert together([H200, H200]).names == ("NVIDIA H200",)
    assert together([H200, Detection("cuda", 2, (), names=("NVIDIA H20",))]).names == ("NVIDIA H200", "NVIDIA H20")
    assert together([H200, Detection("cuda", 0, (), "no driver")]).problem == "no driver"
