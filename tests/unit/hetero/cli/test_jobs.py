"""`hetero submit` and `hetero jobs` before a job server that is not there; a real one has tests/e2e/test_cluster.py."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobDetails

from hetero.cli.app import run
from hetero.cluster.errors import ClusterError
from hetero.cluster.jobs import fetch, jobs
from hetero.cluster.jobs.jobs import JobView, shell_path
from hetero.job.run import parcel
from tests.architecture.tree import ROOT

AUTO = str(ROOT / "configs" / "runs" / "auto.yaml")
ADDRESS = ("--address", "http://head:8265")
STARTED = '{"seq": 0, "time": 1.0, "step": null, "epoch": null, "kind": "started", "pool": null, "rank": null}\n'
JOB = JobView("auto-1", "auto", "SUCCEEDED", "~/hetero-runs/auto-1", "", 1.0, 61.0, 0)


class Server:
    """Notes what is asked of it; all its jobs are JOB."""

    handed_in: dict[str, Any]
    view = JOB
    printed = ""

    open = False

    def __init__(self, address: str) -> None:
        assert address == ADDRESS[1]
        self.address = address

    def hears_strangers(self) -> bool:
        return self.open

    def submit(self, folder: Path, command: str, **more: str) -> None:
        Server.handed_in = {"files": sorted(path.name for path in folder.iterdir()), "command": command, **more}

    def follow(self, id_: str) -> Iterator[str]:
        yield from ("step 1\n", "step 2\n")

    def wait(self, id_: str, seconds: float) -> JobView:
        return self.view

    def job(self, id_: str) -> JobView:
        return self.view

    stop = job

    def jobs(self) -> list[JobView]:
        return [self.view]

    def logs(self, id_: str) -> str:
        return "step 1\n"

    def read(self, command: str, seconds: float) -> str:
        return f"Running entrypoint for job x: {command}\n{self.printed}"


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what a parcel is not looked into for."""
    monkeypatch.setattr(parcel, "PACKAGES", ())


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "JobServer", Server)


def test_submit_hands_in_job_and_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", AUTO, *ADDRESS, "--resume", "/shared/a b@3"]) == 0
    handed_in = Server.handed_in
    assert {"job.yaml", "hetero", "bridge", "configs"} <= set(handed_in["files"])
    id_ = handed_in["id_"]
    train = f'python -m hetero.cli train job.yaml --address auto --run-dir "$HOME"/hetero-runs/{id_}'
    assert handed_in["command"] == f"{train} --resume '/shared/a b@3'"
    assert f"submitted {id_}, recorded" in capsys.readouterr().out


@pytest.mark.usefixtures("no_packages")
def test_submit_says_who_else_may_hand_in_or_read_jobs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Server, "open", True)
    assert run(["submit", AUTO, *ADDRESS]) == 0
    token, way = capsys.readouterr().err.splitlines()
    assert token.startswith("warning: Ray's token: none is asked for: whoever reaches the head")
    assert "RAY_AUTH_MODE=token" in token
    assert way.startswith("warning: way to the job server: http: ")


@pytest.mark.slow
@pytest.mark.usefixtures("no_packages")
def test_submit_says_what_of_the_data_stays_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "nowhere").symlink_to("none")
    submit = ("submit", AUTO, "--set", f"data.source={tmp_path}", *ADDRESS)
    assert run(submit) == 0
    assert "warning: left out of data.source: 1 leading nowhere" in capsys.readouterr().err.splitlines()
    (tmp_path / "out").symlink_to(AUTO)
    assert run(submit) == 2
    assert "--set: data.source" in (screen := capsys.readouterr().err)
    assert "its link out leads out of it" in screen


@pytest.mark.usefixtures("no_packages")
@pytest.mark.parametrize(("status", "own", "code"), [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("STOPPED", None, 1)])
def test_following_ends_as_the_job_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str, own: int | None, code: int
) -> None:
    monkeypatch.setattr(Server, "view", replace(JOB, status=status, exit_code=own))
    assert run(["submit", AUTO, *ADDRESS, "--follow"]) == code
    assert "step 1\nstep 2\n" in capsys.readouterr().out
    assert run(["jobs", "logs", "-f", "auto-1", *ADDRESS]) == code


def test_jobs_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "list", *ADDRESS]) == 0
    assert run(["jobs", "status", "auto-1", *ADDRESS]) == 0
    assert run(["jobs", "logs", "auto-1", *ADDRESS]) == 0
    assert run(["jobs", "stop", "auto-1", *ADDRESS]) == 0
    shown = capsys.readouterr().out
    for part in ("auto-1", "succeeded", "60 s", "~/hetero-runs/auto-1", "exit code     0", "step 1"):
        assert part in shown, shown


def test_a_job_that_waits_for_its_pools_is_queued(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Server, "view", replace(JOB, status="RUNNING", queued=True))
    assert run(["jobs", "list", *ADDRESS]) == 0
    assert run(["jobs", "status", "auto-1", *ADDRESS]) == 0
    shown = capsys.readouterr().out
    assert shown.count("queued") == 2
    assert "running" not in shown


def test_what_ray_knows_of_a_job() -> None:
    about: dict[str, Any] = {"type": "SUBMISSION", "submission_id": "auto-1", "job_id": "07000000", "entrypoint": "x"}
    for status, waiting, state in (("RUNNING", {"07000000"}, "queued"), ("RUNNING", {"08000000"}, "running"),
                                   ("STOPPED", {"07000000"}, "stopped")):  # fmt: skip
        assert jobs._view(JobDetails(status=status, **about), waiting).state == state


def test_a_job_that_does_not_stop_is_a_mistake_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "view", replace(JOB, status="RUNNING"))
    assert run(["jobs", "stop", "auto-1", *ADDRESS]) != 0


def archive(**files: str) -> str:
    """What the cluster prints of a run directory."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return base64.encodebytes(packed.getvalue()).decode()


def test_a_run_directory_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packed = archive(**{"./metrics.jsonl": "x" * 9000})
    monkeypatch.setattr(Server, "printed", f"{fetch.BEGIN}\nRunning entrypoint for job x: cd\n{packed}{fetch.END}\n")
    for _ in range(2):
        assert run(["jobs", "fetch", "auto-1", "--to", str(tmp_path), *ADDRESS]) == 0
    assert (tmp_path / "metrics.jsonl").read_text() == "x" * 9000


def test_a_report_of_a_job_is_of_what_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    packed = archive(**{"./events.jsonl": STARTED, "./job.yaml": "name: far-away\n"})
    monkeypatch.setattr(Server, "printed", f"{fetch.BEGIN}\n{packed}{fetch.END}\n")
    assert run(["report", "auto-1", *ADDRESS]) == 0
    assert "far-away" in (tmp_path / "runs" / "auto-1" / "report.html").read_text()


@pytest.mark.parametrize("command", ["top", "dashboard", "report"])
def test_a_job_needs_an_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert run([command, "auto-1"]) == 2
    assert "a job of a cluster needs --address" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["top", "report"])
def test_a_folder_is_a_run_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:1")
    (tmp_path / "events.jsonl").write_text(STARTED)
    assert run([command, str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("cd: no such directory\n", "is not there"),
        (f"{fetch.BEGIN}\n{archive(a='b')}", "was not sent to its end"),
        (f"{fetch.BEGIN}\n{archive(a='b' * 99)[:40]}\n{fetch.END}\n", "damaged"),
        (f"{fetch.BEGIN}\n{archive(**{'../a': 'b'})}{fetch.END}\n", "damaged"),
    ],
)
def test_what_cannot_be_fetched_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed: str, said: str
) -> None:
    monkeypatch.setattr(Server, "printed", printed)
    with pytest.raises(ClusterError, match=said):
        fetch.fetch(Server(ADDRESS[1]), "auto-1", tmp_path / "to")  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()


def test_paths_for_the_shell() -> None:
    assert shell_path("~/runs/a b") == "\"$HOME\"/'runs/a b'"
    assert [shell_path(path) for path in ("~", "~/", "~ann", "~ann/a b", "~;x/y")] == [
        '"$HOME"', '"$HOME"/', "~ann", "~ann/'a b'", "'~;x/y'"]  # fmt: skip
    assert shell_path("/runs/$x") == "'/runs/$x'"


EVIL = "[bold]a[/bold]\x1b]0;owned\x07\u202eb\rc"


def test_what_a_cluster_says_is_shown_and_not_obeyed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    view = replace(JOB, id=EVIL, message=EVIL, run_dir=EVIL, started=1e300)
    monkeypatch.setattr(Server, "view", view)
    monkeypatch.setattr(Server, "logs", lambda self, id_: EVIL)
    monkeypatch.setattr(Server, "follow", lambda self, id_: iter([EVIL]))
    for command in ("list", "status auto-1", "logs auto-1", "logs -f auto-1"):
        run(["jobs", *command.split(), *ADDRESS])
        shown = capsys.readouterr().out
        assert not [letter for letter in "\x1b\x07\u202e\r" if letter in shown], command
        assert "[bold]a[/bold]" in shown, command


def test_of_a_plan_no_more_is_read_than_a_plan_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    with path.open("wb") as file:
        file.truncate(600 << 20)
    assert run(["train", AUTO, "--plan", str(path)]) == 2
    assert "must be at most 4 MiB" in capsys.readouterr().err
    for text in ("[" * 100_000, '{"pipelines": [], "epoch": ' + "9" * 5000 + "}"):
        path.write_text(text)
        assert run(["train", AUTO, "--plan", str(path)]) == 2
        assert len(capsys.readouterr().err) < 3000
