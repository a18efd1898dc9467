"""What a model is compared on, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from backends.chip import load_chip
from backends.cpu import CpuBackend
from backends.emulation import Emulated
from balancer.completion.completion import complete
from balancer.errors import PlanError
from balancer.plan.plan import Plan
from hetero.align.aligned import AlignOptions, aligned
from hetero.align.emulated_step import completed, emulated
from hetero.align.errors import AlignError
from hetero.align.given_text import of_job
from hetero.align.source import source
from hetero.cli.app import run
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.problem import problem
from tests.unit.hetero.align.planted import write

PLAN = {"pipelines": [{"share": 4, "stages": [{"pool": "a", "tp": 1, "units": [0, 6]}]}]}


def _job(folder: Path, kind: str = "llama", **changes: object) -> Path:
    """On questions with their answers, several in a sample."""
    rows = ({"prompt": "q" * (n % 5), "completion": "a" * (1 + n % 3)} for n in range(40))
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"source": str(folder / "chats.jsonl"), "tokenizer": "bytes", "loss": "answers", "seq_len": 16}
    job = {
        "model": {"hf": write(folder / "model", kind, vocab_size=257)},
        "data": data,
        "train": {"steps": 1, "global_batch": 4, "micro_batch": 2},
        "pools": {"a": {"family": "cpu", "count": 1}},
        **changes,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _loaded(folder: Path, kind: str = "llama") -> Job:
    return load_job(_job(folder, kind))


def test_a_job_s_text_is_what_its_run_begins_with(tmp_path: Path) -> None:
    job = _loaded(tmp_path)
    batch = of_job(job, source(str(tmp_path / "model"), "--model"), 2, tmp_path / "text").batch
    assert batch.tokens_BT.shape == (2, 16)
    assert batch.documents_BT is not None
    assert (batch.documents_BT.amax(-1) > 0).all()
    assert 0 < batch.counted < batch.tokens_BT.numel()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "dots1"])
def test_documents_side_by_side_are_what_transformers_makes_of_them(kind: str, tmp_path: Path) -> None:
    job = _loaded(tmp_path, kind)
    found = aligned(str(tmp_path / "model"), "transformers", AlignOptions(of_job=True), job)
    assert not found.faults
    assert not found.emulated


@pytest.mark.slow
def test_a_type_whose_documents_see_each_other_there_is_no_reference(tmp_path: Path) -> None:
    job = _loaded(tmp_path, "gpt_oss")
    with pytest.raises(AlignError, match=r"see each other; .*data\.pack=false"):
        aligned(str(tmp_path / "model"), "transformers", AlignOptions(of_job=True), job)


def _refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["align", *command]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_plan_is_one_of_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the one beside it, unless another is named."""
    job, plan = _job(tmp_path), tmp_path / "other" / "plan.json"
    plan.parent.mkdir()
    plan.write_text(json.dumps(PLAN))
    command = ["--model", str(tmp_path / "model"), "--against", str(plan)]
    assert "--job JOB.yaml" in _refused(command, capsys)
    told = _refused([*command, "--job", str(job), "--samples", "3"], capsys)
    assert "--samples" in told
    assert "whole batch of its job, of 4" in told
    assert "--set data.seq_len=8" in _refused([*command, "--job", str(job), "--seq-len", "8"], capsys)
    assert "--job JOB.yaml" in _refused([*command, "--set", "train.seed=1"], capsys)
    plan.write_text(json.dumps(PLAN).replace('"share": 4', '"share": 3'))
    (plan.parent / "job.yaml").write_text(job.read_text())
    told = _refused(command, capsys)
    assert "plan.json" in told
    assert "share" in told


def test_the_networks_of_real_hosts_are_left_out_where_their_chips_are_emulated(tmp_path: Path) -> None:
    pool = {"family": "cpu", "count": 2, "network_gbit_per_s": 25, "fabric_gbit_per_s": 100}
    job = load_job(_job(tmp_path, pools={"a": pool}))
    found = emulated(job, Plan.model_validate(PLAN), None).pools["a"]
    assert found.emulate
    assert (found.network_gbit_per_s, found.fabric_gbit_per_s) == (None, None)


def test_what_trains_more_than_its_job_does_fits_an_emulated_chip(tmp_path: Path) -> None:
    """A chip that holds adapters of 7 billion parameters, and not the state of all of them."""
    plan = Plan.model_validate({"pipelines": [{"share": 4, "stages": [{"pool": "a", "tp": 1, "units": [0, 66]}]}]})
    train = {"steps": 1, "global_batch": 4, "micro_batch": 1, "precision": "bfloat16", "lora": {"rank": 2}}
    pools = {"a": {"family": "cuda", "chip": "A800-80G", "count": 1}}
    job = load_job(_job(tmp_path, model={"preset": "llama-7b"}, train=train, pools=pools))
    complete(plan, problem(job))
    found = emulated(job, plan, None)
    assert completed(found, plan).pipelines[0].stages[0].chips == (0,)
    options = found.pools["a"].emulate
    assert options is not None
    full = job.model_copy(update={"train": found.train})
    with pytest.raises(PlanError):
        complete(plan, problem(full))
    Emulated(CpuBackend, load_chip("cpu"), options).claim("stage", 1 << 50)


def test_more_ranks_than_a_host_has_room_for_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _job(tmp_path, pools={"a": {"family": "cpu", "count": 65}})
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    told = _refused(["--model", str(tmp_path / "model"), "--against", str(tmp_path / "plan.json")], capsys)
    assert "65 chips" in told
