from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from hetero.errors import render
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.job import Job

JOB: dict[str, Any] = {
    "model": {"preset": "llama-tiny"},
    "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": 256},
    "train": {"steps": 4, "global_batch": 16, "micro_batch": 2},
    "pools": {
        "one": {"family": "cuda", "chip": "A800-80G", "count": 2, "tp": 2, "emulate": {}},
        "two": {"family": "ascend", "chip": "Ascend-910B2", "count": 4, "emulate": {}},
    },
    "bridge": {"links": [{"between": ["one", "two"], "transport": "grpc"}]},
}


def _load(tmp_path: Path, job: dict[str, Any], *settings: str) -> Job:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return load_job(path, settings)


def _error(tmp_path: Path, *settings: str) -> JobError:
    with pytest.raises(JobError) as caught:
        _load(tmp_path, JOB, *settings)
    return caught.value


def test_a_job_is_named_after_its_file_and_survives_being_written_down(tmp_path: Path) -> None:
    job = _load(tmp_path, JOB)
    assert job.name == "tiny"
    again = _load(tmp_path, job.resolved())
    assert again == job
    assert again.fingerprint() == job.fingerprint()


@pytest.mark.parametrize(
    ("setting", "key", "guess"),
    [
        ("trian={}", "trian", "train"),
        ("train.stpes=1", "train.stpes", "steps"),
        ("train.optimizer.lrr=1", "train.optimizer.lrr", "lr"),
        ("pools.one.cuont=2", "pools.one.cuont", "count"),
        ("pools.one.emulate.sped=2", "pools.one.emulate.sped", "speed"),
        ("pools.one.emulate.events=[{at_stp: 1, speed: 1}]", "pools.one.emulate.events[0].at_stp", "at_step"),
        ("bridge.links[0].transprot=zmq", "bridge.links[0].transprot", "transport"),
        ("balance.shedule=gpipe", "balance.shedule", "schedule"),
        ("checkpoint.evry=1", "checkpoint.evry", "every"),
        ("monitor.trace_evry=1", "monitor.trace_evry", "trace_every"),
        ("pools.one.chip=A800-80", "pools.one.chip", "A800-80G"),
        ("pools.one.family=cude", "pools.one.family", "cuda"),
        ("model.preset=lama-tiny", "model.preset", "llama-tiny"),
        ("bridge.links[0].between=[one, tow]", "bridge.links[0].between", "two"),
        ("train.freeze=[embeding.weight]", "train.freeze", "embedding.weight"),
        ("train.shadow={every: 5, pool: tow}", "train.shadow.pool", "two"),
        ("train.shadow={evry: 5, pool: two}", "train.shadow.evry", "every"),
        ("train.lora={targets: [gat]}", "train.lora.targets", "gate"),
        ("train.lora={rnak: 8}", "train.lora.rnak", "rank"),
    ],
)
def test_a_misspelt_name_is_guessed_at_every_level(tmp_path: Path, setting: str, key: str, guess: str) -> None:
    error = _error(tmp_path, setting)
    assert error.key == key
    assert f"did you mean {guess}" in error.remedy.replace("'", "").replace("Did", "did")


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("train.steps=0", "train.steps"),
        ("train.steps=many", "train.steps"),
        ("train.micro_batch=3", "train"),
        ("train.optimizer.name=adam", "train.optimizer.name"),
        ("pools={}", "pools"),
        ("pools.one.tp=4", "pools.one.tp"),
        ("pools.two={family: ascend, chip: Ascend-910B2, count: 4, chips_per_host: 2, tp: 4}", "pools.two.tp"),
        ("pools.one.family=ascend", "pools.one.chip"),
        ("pools.two.chip=Ascend-910A", None),
        ("train.freeze=['*']", "train.freeze"),
        ("train.shadow={every: 0, pool: two}", "train.shadow.every"),
        ("train.shadow={pool: two}", "train.shadow.every"),
        ("train.shadow={every: 5}", "train.shadow.pool"),
        ("train.lora={rank: 0}", "train.lora.rank"),
        ("train.lora={dropout: 0.1}", "train.lora.dropout"),
        ("time_scale=0", "time_scale"),
        ("time_scale=fast", "time_scale"),
        ("bridge.links=[{between: [one, one]}]", "bridge.links[0].between"),
        ("bridge.links=[{between: [one, two]}, {between: [two, one]}]", "bridge.links"),
    ],
)
def test_what_does_not_fit_is_named_with_a_remedy(tmp_path: Path, setting: str, key: str | None) -> None:
    settings = (setting,) if key else (setting, "train.precision=bfloat16")
    error = _error(tmp_path, *settings)
    assert error.key == (key or "train.precision")
    assert error.rule
    assert error.remedy


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("bridge.codec={activation: fp8}", "bridge.codec.activation"),
        ("bridge.links[0].codec=fp8", "bridge.links[0].codec.activation"),
    ],
)
def test_float8_goes_to_no_chip_that_cannot_read_it(tmp_path: Path, setting: str, key: str) -> None:
    job = copy.deepcopy(JOB)
    job["pools"]["two"] |= {"family": "ascend", "chip": "Ascend-910B2"}
    with pytest.raises(JobError) as caught:
        _load(tmp_path, job, setting)
    error = caught.value
    assert (error.key, error.value) == (key, "fp8")
    assert "pool two (Ascend-910B2)" in error.rule
    assert "int8 or bf16" in error.remedy
    job["pools"]["two"] |= {"family": "cuda", "chip": "A800-80G"}
    _load(tmp_path, job, setting)


def test_a_shadow_needs_another_pool(tmp_path: Path) -> None:
    job = copy.deepcopy(JOB)
    del job["pools"]["one"], job["bridge"]
    with pytest.raises(JobError) as caught:
        _load(tmp_path, job, "train.shadow={every: 5, pool: two}")
    assert caught.value.key == "train.shadow.pool"
    assert "no other" in caught.value.rule


def test_a_shadow_decides_no_numbers(tmp_path: Path) -> None:
    """So a run that has one goes on without it, and one that has none with it."""
    watched = _load(tmp_path, JOB, "train.shadow={every: 5, pool: two}")
    assert watched.fingerprint() == _load(tmp_path, JOB).fingerprint()


@pytest.mark.parametrize("codec", ["bf16", "int8"])
def test_bfloat16_goes_to_no_chip_that_cannot_read_it(tmp_path: Path, codec: str) -> None:
    """int8 falls back to it."""
    job = copy.deepcopy(JOB)
    job["pools"]["two"] |= {"family": "ascend", "chip": "Ascend-910A"}
    with pytest.raises(JobError) as caught:
        _load(tmp_path, job, f"bridge.codec={{activation: {codec}}}")
    error = caught.value
    assert (error.key, error.value) == ("bridge.codec.activation", codec)
    assert "pool two (Ascend-910A)" in error.rule
    assert "none" in error.remedy
    _load(tmp_path, job, f"bridge.codec={{activation: {codec}}}", "train.precision=float16")


def test_the_error_names_file_and_line(tmp_path: Path) -> None:
    job = copy.deepcopy(JOB)
    job["pools"]["two"]["chip"] = "Ascend-910B9"
    with pytest.raises(JobError) as caught:
        _load(tmp_path, job)
    path = tmp_path / "tiny.yaml"
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "910B9" in text)
    assert render(caught.value).splitlines()[0] == f"{path}:{line}: pools.two.chip"


@pytest.mark.parametrize(("setting", "steps"), [("100", 100), ("1e2", 100), ("1_000", 1000), ("0x10", 16)])
def test_a_number_is_what_a_person_reads(tmp_path: Path, setting: str, steps: int) -> None:
    assert _load(tmp_path, JOB, f"train.steps={setting}").train.steps == steps


@pytest.mark.parametrize("setting", ["0100", "1:30", "2026-01-31", "yes", "1.5"])
def test_a_number_that_nobody_reads_alike_is_refused(tmp_path: Path, setting: str) -> None:
    assert "train.steps" in _error(tmp_path, f"train.steps={setting}").key


@pytest.mark.parametrize("value", ["8080", "true", "1.5"])
def test_a_number_for_a_text_is_to_be_quoted(tmp_path: Path, value: str) -> None:
    error = _error(tmp_path, f"pools.one.interface={value}")
    assert (error.key, error.remedy) == ("pools.one.interface", f'quote it: "{value}"')
    assert _error(tmp_path, f"pools.one.env.vars.X={value}").remedy == "quote it", "and it may be a secret"


@pytest.mark.parametrize(
    ("setting", "key", "rule"),
    [
        ("train.lora={targets: {q: 1}}", "train.lora.targets", "should be 'all' or a valid tuple"),
        ("data.source={source: a.txt}", "data.source", "should be a valid string or a valid tuple"),
        ("pools.one.tp={q: 1}", "pools.one.tp", "should be 'auto' or a valid integer"),
        ("data.source=[{source: a.txt, weight: x}]", "data.source[0].weight", "should be a valid number"),
        ("data.source=[{weight: 1}]", "data.source[0].source", "is required"),
    ],
)
def test_what_may_be_of_several_kinds_has_the_file_s_own_key(tmp_path: Path, setting: str, key: str, rule: str) -> None:
    error = _error(tmp_path, setting)
    assert (error.key, error.rule) == (key, rule)


def test_a_text_that_looks_like_no_stays_one(tmp_path: Path) -> None:
    assert _load(tmp_path, JOB, "name=no", "pools.one.env.vars.X=off", "bridge.encrypt=on").name == "no"


def test_a_missing_key_says_where_it_belongs(tmp_path: Path) -> None:
    job = copy.deepcopy(JOB)
    del job["train"]["steps"]
    with pytest.raises(JobError) as caught:
        _load(tmp_path, job)
    assert (caught.value.key, caught.value.rule) == ("train.steps", "is required")
    assert "under `train`" in caught.value.remedy


STAGES = "[{pool: one, tp: 2, units: [0, 4]}, {pool: two, tp: 4, units: [4, 10]}]"
MANUAL = f"[{{share: 16, micro_batch: 2, stages: {STAGES}}}]"


def test_a_plan_by_hand_is_accepted(tmp_path: Path) -> None:
    job = _load(tmp_path, JOB, "balance.mode=manual", f"balance.pipelines={MANUAL}")
    assert job.balance.pipelines is not None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("pool: two", "pool: tow"), "balance.pipelines[0].stages[1].pool"),
        (("tp: 2", "tp: 1"), "balance.pipelines[0].stages[0].tp"),
        (("tp: 4", "tp: 8"), "balance.pipelines[0].stages[1].tp"),
        (("share: 16", "share: 14"), "balance.pipelines.share"),
        (("[4, 10]", "[5, 10]"), None),
        (("tp: 2, units: [0, 4]", "tp: 2, units: [0, 2]}, {pool: one, tp: 2, units: [2, 4]"), "pools.one.count"),
        (("units: [0, 4]", "unit: [0, 4]"), "balance.pipelines[0].stages[0].unit"),
    ],
)
def test_a_plan_by_hand_that_breaks_a_rule_is_refused(tmp_path: Path, change: tuple[str, str], key: str | None) -> None:
    error = _error(tmp_path, f"balance.pipelines={MANUAL.replace(*change)}", "balance.mode=manual")
    assert error.key.startswith(key or "balance.pipelines[0]")


@pytest.mark.parametrize("pool", ["one", "two"])
def test_a_plan_by_hand_gives_a_shadow_somebody_to_look_at(tmp_path: Path, pool: str) -> None:
    shadow = f"train.shadow={{every: 5, pool: {pool}}}"
    manual = ("balance.mode=manual", f"balance.pipelines={MANUAL}")
    assert _load(tmp_path, JOB, shadow, *manual).train.shadow is not None
    alone = f"balance.pipelines={MANUAL.replace(STAGES, '[{pool: one, tp: 2, units: [0, 10]}]')}"
    error = _error(tmp_path, shadow, "balance.mode=manual", alone)
    assert error.key == "balance.pipelines"
    assert ("all stages are its own" in error.rule) == (pool == "one")
    assert "train.shadow" in error.remedy


def test_the_fingerprint_is_of_what_decides_the_numbers(tmp_path: Path) -> None:
    base = _load(tmp_path, JOB).fingerprint()
    for setting in (
        "pools.two.count=2",
        "train.micro_batch=1",
        "train.steps=9",
        "balance.schedule=gpipe",
        "name=x",
        "data.source=/else",
    ):
        assert _load(tmp_path, JOB, setting).fingerprint() == base, setting
    for setting in (
        "train.seed=1",
        "train.global_batch=8",
        "data.seq_len=128",
        "train.optimizer.lr=0.1",
        "train.lora={}",
    ):
        assert _load(tmp_path, JOB, setting).fingerprint() != base, setting


def test_the_length_counts_where_the_learning_rate_follows_it(tmp_path: Path) -> None:
    cosine = "train.optimizer.schedule=cosine"
    assert _load(tmp_path, JOB, cosine).fingerprint() != _load(tmp_path, JOB, cosine, "train.steps=9").fingerprint()


def test_the_error_can_cross_processes(tmp_path: Path) -> None:
    error = _error(tmp_path, "train.steps=0")
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


def test_what_is_held_out_decides_the_numbers_too(tmp_path: Path) -> None:
    plain, every_4, every_8, more = (
        _load(tmp_path, JOB, *settings).fingerprint()
        for settings in ((), ("eval.every=4",), ("eval.every=8",), ("eval.every=4", "eval.batches=5"))
    )
    assert every_4 == every_8
    assert len({plain, every_4, more}) == 3


@pytest.mark.parametrize(
    ("settings", "key", "remedy"),
    [
        (["train.precision=bfloat16"], "train.precision", "set pools.two.precision to float16"),
        (["pools.two.precision=bfloat16"], "pools.two.precision", "set pools.two.precision to float16"),
        (
            ["pools.two.emulate.precision=bfloat16"],
            "pools.two.emulate.precision",
            "set pools.two.emulate.precision to float16",
        ),
        (
            ["train.precision=bfloat16", "pools.two.emulate.precision=float16"],
            "train.precision",
            "set pools.two.precision to float16",
        ),
    ],
)
def test_a_chip_without_bfloat16_computes_in_float16(
    tmp_path: Path, settings: list[str], key: str, remedy: str
) -> None:
    """Whoever paces it."""
    error = _error(tmp_path, "pools.two={family: ascend, chip: Ascend-910A, count: 2, emulate: {}}", *settings)
    assert (error.key, error.value, error.remedy) == (key, "bfloat16", remedy)
    job = _load(tmp_path, JOB, "pools.two.chip=Ascend-910A", "train.precision=bfloat16", "pools.two.precision=float16")
    assert {name: job.precision_of(name) for name in job.pools} == {"one": "bfloat16", "two": "float16"}
