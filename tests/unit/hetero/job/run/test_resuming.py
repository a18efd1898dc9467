"""A job goes on from a checkpoint of the same numbers on the same text, wherever that lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.resume import CHECKPOINTS, ResumePoint
from hetero.checkpoint.store import CheckpointStore
from hetero.data.source import Prepared, prepare
from hetero.errors import render
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.run.resuming import NOT_COMPARED, check_resume, check_text, resume_notices, saved_text
from tests.architecture.tree import ROOT
from tests.unit.hetero.huggingface.written import write_folder

AUTO = ROOT / "configs" / "runs" / "auto.yaml"


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text("some text")
    return tmp_path / "corpus.txt"


def _job(*settings: str) -> Job:
    return load_job(AUTO, ["data={source: corpus.txt, seq_len: 4}", *settings])


def _text(job: Job) -> Prepared:
    return prepare(job.data, Path("made"))


def _saved(job: Job, *, earlier: bool = False) -> ResumePoint:
    """A checkpoint of step 3, by this version or by one that kept neither facts nor text."""
    known = {"job_fingerprint": job.fingerprint(), "job_facts": job.facts(), "text": saved_text(_text(job))}
    if earlier:
        known = {"job_fingerprint": job.fingerprint_with_path()}
    store = CheckpointStore(Path("run") / CHECKPOINTS)
    store.begin(3)
    store.commit(3, RunState(consumed_sequences=0, consumed_tokens=0, plan={}, **known), [])  # type: ignore[arg-type]
    return ResumePoint.parse("run")


@pytest.mark.parametrize("place", ["./corpus.txt", "{here}/corpus.txt", "moved", "folder"])
def test_the_same_text_under_another_path_is_the_same(place: str, corpus: Path) -> None:
    point = _saved(_job())
    if place == "moved":
        corpus.rename(place)
    elif place == "folder":
        Path("folder").mkdir()
        corpus.rename("folder/other-name.md")
    job = _job(f"data.source={place.format(here=corpus.parent)}")
    check_resume(job, point)
    assert check_text(job, point, _text(job)) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [("some text and more", "had 10 tokens, now there are 19"), ("some tex!", "had 10 tokens, as many as now, but")],
)
def test_other_text_under_the_same_path_is_refused(text: str, said: str, corpus: Path) -> None:
    job = _job()
    point = _saved(job)
    corpus.write_text(text)
    check_resume(job, point)
    with pytest.raises(JobError, match=said) as raised:
        check_text(job, point, _text(job))
    assert (raised.value.key, raised.value.value) == ("data.source", "corpus.txt")


def test_another_python_is_other_text() -> None:
    job = _job()
    point = _saved(job)
    other = job.model_copy(update={"data": job.data.model_copy(update={"source": "python-stdlib"})})
    with pytest.raises(JobError, match="under the Python that the run had"):
        check_text(other, point, Prepared(Path("tokens.bin"), "another", 257, 11, 3.0))


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("data.seq_len=2", "data.seq_len was 4, is 2"),
        ("train.seed=7", "train.seed was 0, is 7"),
        ("train.optimizer.name=sgd", "train.optimizer.name was adamw, is sgd"),
        ("eval.every=2", "eval.held_out_batches was 0, is 4"),
        ("train.optimizer.momentum=0.5", "train.optimizer.momentum was 0.0, is 0.5"),
    ],
)
def test_a_setting_that_differs_is_named_and_no_other(setting: str, named: str) -> None:
    point = _saved(_job())
    with pytest.raises(JobError) as raised:
        check_resume(_job(setting), point)
    assert raised.value.key == "--resume"
    assert raised.value.rule.endswith(f"another model, data or training: {named}")
    assert str(Path("run", "job.yaml")) in raised.value.remedy


def test_a_run_that_diverged_may_go_on_with_another_learning_rate_and_says_so() -> None:
    point, other = _saved(_job()), _job("train.optimizer={name: adamw, lr: 0.0005, clip: 0.1}")
    check_resume(other, point)
    (notice,) = resume_notices(other, point)
    assert notice.kind == "warning"
    for part in ("another run", "train.optimizer.clip was 1.0, is 0.1", "train.optimizer.lr was 0.002, is 0.0005"):
        assert part in notice.facts["note"]
    assert list(resume_notices(_job(), point)) == []


def test_another_model_fits_the_screen() -> None:
    point = _saved(_job())
    model = "model={dimensions: {layers: 2, hidden: 16, heads: 4, kv_heads: 4, ffn: 16, vocab: 400}}"
    other = _job(model, "data.seq_len=2", "train.seed=1")
    with pytest.raises(JobError, match=r"was .*; and \d+ more") as raised:
        check_resume(other, point)
    assert "model.dimensions.hidden was" in render(raised.value)
    assert len(render(raised.value).splitlines()) < 10


def test_what_may_change_may_change() -> None:
    point = _saved(_job())
    check_resume(_job("train.steps=50", "train.micro_batch=1", "balance.schedule=gpipe"), point)


def test_a_checkpoint_that_does_not_know_its_text_is_resumed_and_it_is_said(corpus: Path) -> None:
    job = _job()
    point = _saved(job, earlier=True)
    corpus.write_text("other text")
    check_resume(job, point)
    assert check_text(job, point, _text(job)) == NOT_COMPARED


@pytest.mark.parametrize("setting", ["train.seed=7", "data.source=./corpus.txt"])
def test_a_checkpoint_without_facts_says_no_more_than_it_knows(setting: str) -> None:
    point = _saved(_job(), earlier=True)
    with pytest.raises(JobError, match="training, or the text at another path"):
        check_resume(_job(setting), point)


@pytest.mark.parametrize(
    ("settings", "known"),
    [((), "c19496beeb779675"), (("eval.every=2", "data.source=x"), "428210ae5bfb615a")],
)
def test_a_checkpoint_without_facts_is_known_by_the_hash_of_its_time(settings: tuple[str, ...], known: str) -> None:
    """Which the version before facts were kept gave these jobs."""
    assert load_job(AUTO, settings).fingerprint_with_path() == known


def test_a_model_that_is_told_in_another_way_is_another(tmp_path: Path) -> None:
    config = {"model_type": "llama", "vocab_size": 300, "num_hidden_layers": 1}
    write_folder(tmp_path / "tiny", config=config)
    point, model = _saved(_job()), f"model={{hf: {tmp_path / 'tiny'}}}"
    with pytest.raises(JobError, match=r"model\.told as was dimensions, is hf"):
        check_resume(_job(model), point)
    check_resume(_job(model), _saved(_job(model)))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ([], ["train.lora={rank: 4}"], "train.lora.rank was not set, is 4"),
        (["train.lora={rank: 4}"], ["train.lora={rank: 8}"], "train.lora.rank was 4, is 8"),
        (["train.freeze=[embedding*]"], [], "train.freeze was ['embedding*'], is not set"),
    ],
)
def test_a_job_that_trains_other_tensors_is_another(before: list[str], after: list[str], says: str) -> None:
    with pytest.raises(JobError) as found:
        check_resume(_job(*after), _saved(_job(*before)))
    assert says in found.value.rule


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({"rope_scaling": None}, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling was None, is {"),
        ({}, {"attention_bias": True}, "attention_bias was not set, is True"),
        ({"rope_theta": 7.0}, {}, "rope_theta was 7.0, is not set"),
    ],
)
def test_what_a_model_is_no_more_silent_about_makes_it_another(
    before: dict[str, Any], after: dict[str, Any], says: str, tmp_path: Path
) -> None:
    config = {"model_type": "llama", "vocab_size": 300, "num_hidden_layers": 1}
    model = f"model={{hf: {tmp_path / 'tiny'}, init: random}}"
    write_folder(tmp_path / "tiny", config=config | before)
    point = _saved(_job(model))
    write_folder(tmp_path / "tiny", config=config | after)
    with pytest.raises(JobError) as found:
        check_resume(_job(model), point)
    assert f"model.hf.{says}" in found.value.rule
