"""Values that are nobody else's business stay where they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hetero.cli.app import run
from hetero.errors import ExplainedError, render, unspoken
from hetero.job.checks import check_told
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.run import parcel
from hetero.masking import MASK, first_masked, hidden, masked, secret_values, without_passwords
from tests.unit.hetero.monitoring.synthetic import write_run

SECRET = "hunter2-hunter2"
JOB: dict[str, Any] = {
    "model": {"preset": "llama-tiny"},
    "data": {"seq_len": 256},
    "train": {"steps": 10, "global_batch": 16},
    "pools": {
        "a": {
            "family": "cpu", "chip": "cpu", "count": 2,
            "env": {"vars": {"TOKEN": SECRET, "OMP_NUM_THREADS": "4", "MODE": "fast"}, "public": ["MODE"]},
        }
    },
    "monitor": {
        "trackers": [
            {"name": "mlflow", "options": {"tracking_uri": f"https://me:{SECRET}@host/x", "api_key": SECRET}}
        ]
    },
}  # fmt: skip


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    return tmp_path / "job.yaml"


def test_a_resolved_job_has_masks_and_what_is_public(job_file: Path) -> None:
    job = load_job(job_file)
    shown = job.resolved()
    assert SECRET not in str(shown)
    assert shown["pools"]["a"]["env"]["vars"] == {"TOKEN": MASK, "OMP_NUM_THREADS": "4", "MODE": "fast"}
    assert shown["monitor"]["trackers"][0]["options"]["tracking_uri"] == f"https://me:{MASK}@host/x"
    assert SECRET not in repr(job)
    assert SECRET in str(job.unmasked())


def test_a_recorded_job_loads_but_does_not_start(job_file: Path, tmp_path: Path) -> None:
    """It can be planned, and judged in a report; given its values it is the job."""
    recorded = tmp_path / "recorded.yaml"
    recorded.write_text(yaml.safe_dump(load_job(job_file).resolved()))
    job = load_job(recorded)
    assert job.facts() == load_job(job_file).facts()
    with pytest.raises(JobError, match="not recorded") as raised:
        check_told(job.unmasked())
    assert raised.value.key == "pools.a.env.vars.TOKEN"
    settings = [f"pools.a.env.vars.TOKEN={SECRET}", f"monitor.trackers={JOB['monitor']['trackers']}"]
    whole = load_job(recorded, settings)
    check_told(whole.unmasked())
    assert whole.pools == load_job(job_file).pools


@pytest.mark.parametrize("command", ["train", "submit"])
def test_the_screen_says_which_value_and_where(
    command: str, job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero.cluster.jobs.jobs.JobServer", lambda address: None)
    recorded = tmp_path / "recorded.yaml"
    recorded.write_text(yaml.safe_dump({**load_job(job_file).resolved(), "monitor": {}}))
    place = ("--address", "http://head:1") if command == "submit" else ("--run-dir", str(tmp_path / "run"))
    assert run([command, str(recorded), *place]) == 2
    screen = capsys.readouterr().err
    for part in (f"{recorded}:", "pools.a.env.vars.TOKEN", "--set pools.a.env.vars.TOKEN=VALUE"):
        assert part in screen, screen
    assert not (tmp_path / "run").exists()


def test_the_values_travel_to_the_cluster_for_their_owner_alone(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcel, "PACKAGES", ())
    (tmp_path / "parcel").mkdir()
    parcel.pack(load_job(job_file), tmp_path / "parcel")
    assert load_job(tmp_path / "parcel" / "job.yaml").pools["a"].env.vars["TOKEN"] == SECRET
    assert (tmp_path / "parcel" / "job.yaml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "setting",
    [
        "pools.a.env.vars.TOKEN={SECRET: 1}",
        "pools.a.env.vars.TOKEN=[SECRET",
        "pools.a.env.vars.TOKEN=[SECRET]",
        "pools.a.env.vars.OTHER= SECRET: SECRET: x",
        "pools.a.env.vars=SECRET",
        "pools.a.env.vars=[SECRET]",
        "pools.a.env=SECRET",
        "pools.a.env.vars.TOKEN SECRET",
        "pools.a={env: {vars: {TOKEN: SECRET}}, count: [{vars: SECRET}]}",
        "pools=[{env: {vars: {TOKEN: SECRET}}}]",
        "monitor.trackers.0.options=[{api_key: SECRET}]",
        "checkpoint.storage=s3://me:SECRET@host/x",
        "data.tokenizer=https://me:SECRET@host/x",
    ],
)
def test_no_screen_shows_them(setting: str, job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(job_file), "--set", setting.replace("SECRET", SECRET)]) == 2
    screen = capsys.readouterr()
    assert "Traceback" not in screen.err
    assert SECRET not in screen.err + screen.out


def test_a_mistake_in_a_file_is_shown_without_them(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("20010101", "020010101", "[hunter2-hunter2]", "1" + "0" * 5000):
        job_file.write_text(yaml.safe_dump(JOB).replace(f"TOKEN: {SECRET}", f"TOKEN: {value}"))
        assert run(["plan", str(job_file)]) == 2
        screen = capsys.readouterr().err
        assert value.strip("[]") not in screen
        assert "pools.a.env.vars.TOKEN" in screen


def test_a_public_name_is_one_of_the_variables(job_file: Path) -> None:
    with pytest.raises(JobError, match="'MOED' is none of them"):
        load_job(job_file, ["pools.a.env.public=[MOED]"])


def test_the_report_of_a_job_that_was_recorded_with_them_shows_none(tmp_path: Path) -> None:
    write_run(tmp_path)
    job = yaml.safe_load((tmp_path / "job.yaml").read_text())
    job["pools"]["nvidia"]["env"] = {"vars": {"TOKEN": SECRET}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert run(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert SECRET not in page
    assert MASK in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://me:pw@db/x", f"postgres://me:{MASK}@db/x"),
        ("see https://token@host/a and http://b", f"see https://{MASK}@host/a and http://b"),
        ("http://h/x?api_key=abc&n=1", f"http://h/x?api_key={MASK}&n=1"),
        ("http://h/x?n=1#token=abc", f"http://h/x?n=1#token={MASK}"),
        ("http://h/x?apikey=abc", f"http://h/x?apikey={MASK}"),
        ("https://me@example.com:pw@proxy:80/x", f"https://me@example.com:{MASK}@proxy:80/x"),
        ("http://me:p@w@host/x", f"http://me:{MASK}@host/x"),
        ("http://host:80?to=me@example.com", "http://host:80?to=me@example.com"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("file:///a/b", "file:///a/b"),
    ],
)
def test_addresses_without_their_passwords(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
    assert without_passwords(shown) == shown
    assert shown in render(ExplainedError("key", text, "rule", "remedy"))


def test_what_a_library_says_is_passed_on_without_them(job_file: Path) -> None:
    secrets = secret_values(load_job(job_file).unmasked())
    assert secrets == (SECRET,)
    assert hidden({"error": {"traceback": f"x={SECRET}!", "at": (1, None)}}, secrets) == {
        "error": {"traceback": f"x={MASK}!", "at": (1, None)}
    }
    with pytest.raises(ExplainedError) as raised, unspoken(secrets):
        raise ExplainedError("rank", "a:0", f"it said {SECRET}", "remedy")
    assert SECRET not in str(raised.value) + render(raised.value)


@pytest.mark.parametrize(
    "pools", [None, [], {"a": 1}, {"a": {"env": []}}, {"a": {"env": {"vars": SECRET, "public": 5}}}]
)
def test_data_of_strangers_is_masked_as_far_as_it_goes(pools: Any) -> None:
    for monitor in (None, [], {"trackers": 5}, {"trackers": [5, {"options": 5}, {"options": {"a": {"key": SECRET}}}]}):
        assert SECRET not in str(masked({"pools": pools, "monitor": monitor}))
    assert first_masked({"a": [{"b": MASK}]}) == "a[0].b"


def test_a_job_without_secrets_is_what_is_recorded() -> None:
    plain = {**JOB, "pools": {"a": {"family": "cpu", "chip": "cpu", "count": 2}}, "monitor": {}}
    job = Job.model_validate(plain)
    assert Job.model_validate(job.resolved()) == job
