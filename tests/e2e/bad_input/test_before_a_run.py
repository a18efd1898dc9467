"""Mistakes that are found between reading the job and the first step: refused, and nothing is left."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.errors import OutOfMemory
from bridge.rank import RankId
from bridge.words.error import ErrorReport
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.resume import CHECKPOINTS
from hetero.checkpoint.store import CheckpointStore
from hetero.cli.app import run
from hetero.cluster.control.events import Severity, Trouble
from hetero.data.source import prepare
from hetero.job.file.load import load_job
from hetero.job.run.claim import Claim
from hetero.job.run.resuming import saved_text
from hetero.monitoring.journal import EVENTS, read
from tests.e2e.bad_input.screens import JOB, Refusal, check_screen, refused, spoilt
from tests.e2e.bad_input.scripted import script

SOURCE = "source: python-stdlib"
NEVER = ("--address", "127.0.0.1:1")
"""Nobody listens there: a mistake that is overlooked starts no Ray."""


class Place:
    """A folder with a job, a text, and a run directory that is not there yet."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.run_dir, self._capsys = folder, folder / "run", capsys
        self.text = folder / "text.txt"
        self.text.write_text("some text " * 100)
        self.job = spoilt(folder, SOURCE, f"source: {self.text}")

    def refuses(self, *more: str | Path) -> Refusal:
        """Of `hetero train`, which must leave all as it was."""
        before = sorted(self.folder.rglob("*"))
        refusal = refused(self._capsys, "train", self.job, "--run-dir", self.run_dir, *more)
        assert sorted(self.folder.rglob("*")) == before
        return refusal


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, capsys)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


# Data


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("/nowhere/at/all", "there is no such file or folder"),
        ("~nobody-of-that-name/text", "the home ~nobody-of-that-name is not known on this machine"),
        ("x" * 5000, "there is no such file or folder"),
        ("/dev/zero", "must be a file or a folder"),
        ("/proc/self/mem", "cannot be read"),
    ],
    ids=["missing", "home", "long", "device", "unreadable"],
)
def test_data_that_is_not_there(source: str, rule: str, place: Place) -> None:
    place.job = spoilt(place.folder, SOURCE, f"source: {source}")
    refusal = place.refuses(*NEVER)
    refusal.is_at(place.job, "source:", "data.source")
    refusal.says(source[:100], rule)


def test_a_text_that_is_empty(place: Place) -> None:
    place.text.write_text("")
    refusal = place.refuses(*NEVER)
    refusal.is_at(place.job, "source:", "data.source")
    refusal.says(str(place.text), "has no text", "name a file or folder with text")


def test_a_folder_without_text(place: Place) -> None:
    (place.folder / "texts").mkdir()
    (place.folder / "texts" / ".hidden").write_text("not read")
    place.refuses("--set", "data.source=texts", *NEVER).says("--set: data.source", "has no text")


@pytest.mark.parametrize("below", ["", "texts"])
def test_a_text_in_the_run_directory(below: str, place: Place) -> None:
    (place.run_dir / "texts").mkdir(parents=True)
    place.job = spoilt(place.folder, SOURCE, f"source: {place.run_dir / below}")
    refusal = place.refuses(*NEVER)
    refusal.is_at(place.job, "source:", "data.source")
    refusal.says("which this run writes", "record the run elsewhere")


def test_a_text_in_the_storage_of_the_run(place: Place) -> None:
    text = place.folder / "storage" / "run"
    text.mkdir(parents=True)
    more = f"checkpoint={{every: 1, storage: {text.parent}}}"
    place.refuses("--set", more, "--set", f"data.source={text}", *NEVER).says("data.source", "which this run writes")


def test_a_run_directory_and_storage_in_the_text_are_no_part_of_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run writes must not be what it reads, neither now nor when it is resumed."""
    corpus = place.folder / "corpus"
    corpus.mkdir()
    place.text.rename(corpus / "text.txt")
    place.job.write_text(JOB.replace(SOURCE, "source: .").replace("every: 0", "every: 1, storage: kept"))
    job = place.job.rename(place.folder / "run.yaml")
    monkeypatch.chdir(corpus)
    tokens: list[int] = []
    monkeypatch.setattr("hetero.run._Run.drive", lambda run, *_: tokens.append(run._text.n_tokens))
    for number, written in ((1, 2), (2, 4)):
        script(monkeypatch)
        assert run(["train", str(job), "--run-dir", f"runs/{number}"]) == 0, capsys.readouterr().err
        note = f"left out of data.source: {written} written by a run"
        assert f"warning note {note}\n" in capsys.readouterr().out
        events = list(read(Path("runs", str(number), EVENTS)))
        assert [event["data"]["note"] for event in events if event["kind"] == "warning"] == [note]
        step = Path("kept", str(number), "step-00000001")
        step.mkdir()
        (step / "nvidia-0-5f3a90c1.safetensors").write_text("state")
    assert tokens == [1001, 1001]


def test_a_text_that_is_a_runs_tokens(place: Place) -> None:
    for name in ("job.yaml", "events.jsonl", "data/tokens.bin"):
        (place.folder / "old" / name).parent.mkdir(parents=True, exist_ok=True)
        (place.folder / "old" / name).write_text("some text " * 9)
    for source in ("old", "old/data/tokens.bin"):
        place.refuses("--set", f"data.source={source}", *NEVER).says("--set: data.source", "is what a run")


def test_a_sequence_longer_than_the_data(place: Place) -> None:
    place.job = spoilt(place.folder, f"{SOURCE}\n  seq_len: 16", f"source: {place.text}\n  seq_len: 2000")
    refusal = place.refuses(*NEVER)
    refusal.is_at(place.job, "seq_len", "data.seq_len")
    refusal.says("2000", "need 2001 tokens, the source has 1001", "use seq_len 1000 or less")


def test_data_that_differs_between_hosts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, fingerprints={"nvidia@0": "aaa", "ascend@0": "bbb"})
    refusal = place.refuses()
    refusal.is_at(place.job, "source:", "data.source")
    refusal.says("aaa on nvidia@0 (node of nvidia@0): text.bin; bbb on ascend@0", "the same text", "on every host")


# Memory


def test_a_stage_that_does_not_fit_what_a_chip_really_has(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner goes by the datasheet; the chip itself may have less."""
    error = OutOfMemory("memory", "pipeline 0 stage 1", "it needs 70 GiB, the chip has 60", "use fewer units")
    trouble = Trouble(
        "ascend@0", "rank", Severity.OWN_ERROR, "failed", RankId("ascend", 0), ErrorReport.of(error).plain()
    )
    script(monkeypatch, troubles={"ascend@0": trouble})
    refusal = place.refuses()
    refusal.is_at(place.job, "ascend: {", "pools.ascend")
    refusal.says("pipeline 0 stage 1 (rank ascend:0, host ascend@0", "it needs 70 GiB", "use fewer units")


# Where it is recorded


@pytest.mark.parametrize("file", ["metrics.jsonl", "events.jsonl", "job.yaml"])
def test_a_run_directory_that_holds_a_run(file: str, place: Place) -> None:
    place.run_dir.mkdir()
    (place.run_dir / file).touch()
    place.refuses(*NEVER).says("--run-dir", str(place.run_dir), "holds a run already", "choose another")


@pytest.mark.parametrize("folder", ["run", "storage/run"])
def test_a_folder_that_another_run_writes(folder: str, place: Place) -> None:
    claim = Claim.take(place.folder / folder, "--run-dir")
    refusal = place.refuses("--set", f"checkpoint={{every: 1, storage: {place.folder / 'storage'}}}", *NEVER)
    refusal.says("--run-dir" if folder == "run" else "checkpoint.storage", str(place.folder / folder))
    refusal.says("another run writes there", f"process {os.getpid()} on host", "last sign of life", "name another")
    claim.release()


def test_a_run_directory_that_is_a_file(place: Place) -> None:
    place.run_dir.touch()
    place.refuses(*NEVER).says("--run-dir", str(place.run_dir), "folder that can be written", "name another")
    place.run_dir = place.run_dir / "below"
    place.refuses(*NEVER).says("Not a directory")


def test_a_run_directory_that_cannot_be(place: Place) -> None:
    place.run_dir = place.folder / ("x" * 300)
    place.refuses(*NEVER).says("--run-dir", "folder that can be written", "name another")


def test_a_run_directory_by_default(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(place.folder.rglob("*"))
    refused(capsys, "train", place.job, "--set", "name=../a", *NEVER).says("--address")
    assert sorted(place.folder.rglob("*")) == before


def test_a_run_directory_with_something_else_in_it_keeps_it(place: Place) -> None:
    (place.run_dir / "mine").mkdir(parents=True)
    (place.run_dir / "mine" / "note.txt").write_text("kept")
    place.refuses(*NEVER).says("--address")


def test_storage_that_one_host_cannot_write(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, reach={"ascend@0": "cannot write there (Read-only file system)"})
    storage = place.folder / "storage"
    place.job = spoilt(place.folder, SOURCE, f"source: {place.text}")
    place.job.write_text(place.job.read_text().replace("{every: 0}", f"{{every: 1, storage: {storage}}}"))
    refusal = place.refuses()
    refusal.is_at(place.job, "storage:", "checkpoint.storage")
    refusal.says(str(storage), "every host must reach it", "host ascend@0 (a machine) cannot write there (Read-only")
    refusal.says("name a folder on a file system that all hosts mount")


def test_storage_that_is_a_file(place: Place) -> None:
    refusal = place.refuses("--set", f"checkpoint={{every: 1, storage: {place.text}}}", *NEVER)
    refusal.says("checkpoint.storage", str(place.text), "cannot be made", "that you may write to")


def test_storage_that_another_run_used(place: Place) -> None:
    used = place.folder / "storage" / "run"
    used.mkdir(parents=True)
    (used / "step-00000001").touch()
    refusal = place.refuses("--set", f"checkpoint={{every: 1, storage: {used.parent}}}", *NEVER)
    refusal.says("checkpoint.storage", "may hold what another run saved")


# The network


@pytest.mark.parametrize("key", ["port", "prometheus_port"])
def test_a_port_that_is_taken(key: str, place: Place, taken_port: int) -> None:
    place.job = spoilt(place.folder, "{port: null}", f"{{{key}: {taken_port}}}")
    refusal = place.refuses(*NEVER)
    refusal.is_at(place.job, "monitor:", f"monitor.{key}")
    refusal.says(str(taken_port), "in use", "auto")


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("monitor.trackers=[tensorbord]", ("monitor.trackers[0]", "did you mean 'tensorboard'?")),
        (
            "monitor.trackers=[{name: tensorboard, options: {folders: x}}]",
            ("monitor.trackers[0].options.folders", "did you mean 'folder'?"),
        ),
        ("monitor.prometheus_port=70000", ("monitor.prometheus_port", "65535")),
        ("eval.batches=0", ("eval.batches", "greater than 0")),
        (
            "eval={every: 5, batches: 20}",
            ("eval.batches", "sequences are held out, and the text has 62 in all", "use 15 or less"),
        ),
    ],
    ids=["tracker", "its option", "port", "no batches", "more than the text"],
)
def test_what_cannot_watch_a_run(setting: str, parts: tuple[str, ...], place: Place) -> None:
    place.refuses("--set", setting, *NEVER).says(*parts)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:99999", "http://head:8265"])
def test_a_ray_address_that_does_not_answer(address: str, place: Place) -> None:
    place.refuses("--address", address).says("--address", address, "Ray cluster" if "//" not in address else "submit")


@pytest.mark.parametrize(
    ("address", "part"),
    [("http://127.0.0.1:1", "a Ray job server must answer there"), ("127.0.0.1:1", "http://127.0.0.1:8265")],
    ids=["nobody", "no scheme"],
)
def test_an_address_of_no_job_server(address: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "jobs", "list", "--address", address).says(part)


# Plans and checkpoints from elsewhere


def test_a_plan_that_breaks_a_rule_is_told_at_its_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(place.job), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    plan["pipelines"][0]["stages"][1]["units"] = [3, 6]
    path = place.folder / "plan.json"
    path.write_text(json.dumps(plan, indent=1))
    refusal = place.refuses("--plan", path, *NEVER)
    refusal.says(f"{path}:", "pipelines[0].stages[1].units", "unit 2 is in no stage")
    plan["pipelines"][0]["stages"][1]["unit"] = plan["pipelines"][0]["stages"][1].pop("units")
    path.write_text(json.dumps(plan, indent=1))
    refusal = place.refuses("--plan", path, *NEVER)
    refusal.is_at(path, '"unit"', "pipelines[0].stages[1].unit")
    refusal.says("did you mean")


@pytest.mark.parametrize("content", [b"", b"hello", b"[]", b"\xff\xfe", b"{}"])
def test_a_file_that_is_no_plan(content: bytes, place: Place) -> None:
    path = place.folder / "plan.json"
    path.write_bytes(content)
    place.refuses("--plan", path, *NEVER).says(str(path))


@pytest.mark.parametrize(
    ("resume", "rule"),
    [("nowhere", "there is no folder"), ("old", "no whole checkpoint"), ("old@one", "a whole number, not 'one'")],
)
def test_a_resume_of_what_is_no_run(resume: str, rule: str, place: Place) -> None:
    (place.folder / "old").mkdir()
    place.refuses("--resume", resume, *NEVER).says("--resume", resume, rule)


def test_a_resume_with_another_model_or_nothing_left_to_do(place: Place) -> None:
    save(place)
    refusal = place.refuses("--resume", "old", "--set", "model.dimensions.hidden=32", *NEVER)
    refusal.says("--resume", "old@3", "another model, data or training", "resume with that job")
    refusal.says("model.dimensions.hidden was 16, is 32")
    refusal = place.refuses("--resume", "old@3", "--set", "train.steps=3", *NEVER)
    refusal.says("--set: train.steps", "has 3 steps already", "more than 3")
    place.refuses("--resume", "old@2", *NEVER).says("no whole checkpoint of step 2", "old@3")


def test_a_resume_on_another_text(place: Place) -> None:
    save(place)
    place.text.write_text("some text " * 50)
    refusal = place.refuses("--resume", "old", *NEVER)
    refusal.is_at(place.job, "source:", "data.source")
    refusal.says(str(place.text), "had 1,001 tokens, now there are 501", "as it was, wherever it lies")


def save(place: Place) -> None:
    """A checkpoint of the job and its text, of step 3 of the run `old`."""
    store, job = CheckpointStore(place.folder / "old" / CHECKPOINTS), load_job(place.job)
    store.begin(3)
    text = saved_text(prepare(job.data, place.folder / "old" / "data"))
    known = {"job_fingerprint": job.fingerprint(), "job_facts": job.facts(), "text": text}
    store.commit(3, RunState(consumed_sequences=0, consumed_tokens=0, plan={}, **known), [])  # type: ignore[arg-type]


def test_a_pool_in_no_stage_is_a_warning(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = JOB.replace(SOURCE, f"source: {place.text}").replace("units: [0, 2]", "units: [0, 6]")
    place.job.write_text(text.replace("        - {pool: ascend, tp: 1, units: [2, 6]}\n", ""))
    script(monkeypatch, fingerprints={"nvidia@0": "aaa", "ascend@0": "bbb"})  # which ends it
    code = run(["train", str(place.job), "--run-dir", str(place.run_dir)])
    screen = capsys.readouterr()
    check_screen(code, screen.err)
    assert "warning note 1 of 1 chips of pool ascend idle: the plan has no stage there" in screen.out
