"""What travels with a job: it must be whole, and load where it arrives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hetero.data.errors import DataError
from hetero.data.source import prepare
from hetero.job.errors import JobError
from hetero.job.file.load import load_job
from hetero.job.run import parcel
from tests.architecture.tree import ROOT
from tests.unit.hetero.data.made_tokenizer import made_tokenizer
from tests.unit.hetero.data.refused import not_listed

AUTO = ROOT / "configs" / "runs" / "auto.yaml"


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what travels beside them."""
    monkeypatch.setattr(parcel, "PACKAGES", ())


beside_packages = pytest.mark.usefixtures("no_packages")


@pytest.mark.slow
def test_a_parcel_runs_without_this_checkout(tmp_path: Path) -> None:
    """The packages in it come first, and its job is the one that was packed."""
    job = load_job(AUTO)
    parcel.pack(job, tmp_path)
    script = (
        "import hetero.cli.app, bridge, configs; from hetero.job.file.load import load_job; "
        "print(hetero.__file__, bridge.__file__, *configs.__path__, load_job('job.yaml').fingerprint(), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[-1] == job.fingerprint()
    assert said[0].startswith(str(tmp_path))
    assert said[1].startswith(str(tmp_path))
    assert said[2].startswith(str(tmp_path))
    assert load_job(tmp_path / "job.yaml") == job
    assert not list(tmp_path.rglob("__pycache__"))


def test_an_editors_lock_in_a_checkout_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emacs makes it a link to nowhere."""
    home, target = tmp_path / "home", tmp_path / "parcel"
    home.mkdir()
    target.mkdir()
    (home / "train.py").touch()
    (home / ".#train.py").symlink_to("me@host.4711")
    monkeypatch.setattr(parcel, "_home", lambda _: home)
    parcel.pack(load_job(AUTO), target)
    assert os.listdir(target / "hetero") == ["train.py"]


@beside_packages
@pytest.mark.parametrize("folder", [False, True])
def test_local_data_goes_along(tmp_path: Path, folder: bool) -> None:
    source, target = tmp_path / "corpus", tmp_path / "parcel"
    target.mkdir()
    if folder:
        (source / "deep").mkdir(parents=True)
        (source / "deep" / "a.txt").write_text("text")
        (source / ".hidden").write_text("secret")
    else:
        source.write_text("text")
    parcel.pack(load_job(AUTO, [f"data.source={source}"]), target)
    assert load_job(target / "job.yaml").data.source == "data/corpus"
    found = target / "data" / "corpus"
    assert (found / "deep" / "a.txt" if folder else found).read_text() == "text"
    assert not (found / ".hidden").exists()


@beside_packages
def test_data_arrives_as_it_would_be_read_here(tmp_path: Path) -> None:
    """Links, what is hidden, what is no file, what runs wrote: the same tokens, and the same job, by either way."""
    source, target = tmp_path / "corpus", tmp_path / "parcel"
    for name in ("real/a.txt", ".hidden/b.txt", "run/job.yaml", "run/events.jsonl", "run/metrics.jsonl"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"text of {name}")
    links = {"0": "real", "1.txt": "real/a.txt", "2.txt": ".hidden/b.txt", "nowhere": "none", "itself": "itself"}
    for name, place in links.items():
        (source / name).symlink_to(place)
    os.mkfifo(source / "pipe")
    job = load_job(AUTO, [f"data.source={source}", "data.seq_len=4"])
    here = prepare(job.data, tmp_path / "here")
    target.mkdir()
    note = parcel.pack(job, target)
    assert note == here.note
    assert "2 leading nowhere" in note
    assert sorted(os.listdir(target / "data" / "corpus")) == ["2.txt", "real"]
    packed = load_job(target / "job.yaml")
    there = prepare(packed.data.model_copy(update={"source": str(target / packed.data.source)}), tmp_path / "there")
    assert (there.fingerprint, there.n_tokens) == (here.fingerprint, here.n_tokens)
    assert packed.fingerprint() == job.fingerprint()


@beside_packages
def test_a_name_that_cannot_travel_is_refused(tmp_path: Path) -> None:
    """Ray packs a job's folder under names in UTF-8."""
    (tmp_path / "corpus").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "corpus") + b"/a\xff.txt")).write_text("text")
    with pytest.raises(DataError, match=r"UTF-8, and 'a.udcff\.txt' is not"):
        parcel.pack(load_job(AUTO, [f"data.source={tmp_path / 'corpus'}"]), tmp_path)


@beside_packages
@pytest.mark.parametrize("below", [".", "deep"])
def test_a_link_that_leads_out_of_the_data_is_refused(tmp_path: Path, below: str) -> None:
    """Nothing from elsewhere on this machine goes along unawares."""
    source = tmp_path / "corpus"
    (source / below).mkdir(parents=True)
    (source / "a.txt").write_text("text")
    (tmp_path / "secret").write_text("key")
    (source / below / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "parcel").mkdir()
    with pytest.raises(DataError, match=f"its link {Path(below, 'link')} leads out") as raised:
        parcel.pack(load_job(AUTO, [f"data.source={source}"]), tmp_path / "parcel")
    assert (raised.value.key, raised.value.value) == ("data.source", str(source))
    assert not (tmp_path / "parcel" / "data").exists()


@beside_packages
def test_data_that_cannot_be_read_or_is_none_is_refused_here(tmp_path: Path) -> None:
    source, target = tmp_path / "corpus", tmp_path / "parcel"
    (source / "deep").mkdir(parents=True)
    target.mkdir()
    with pytest.raises(DataError, match="has no text"):
        parcel.pack(load_job(AUTO, [f"data.source={source}"]), target)
    shutil.rmtree(target)
    target.mkdir()
    with not_listed(source / "deep"), pytest.raises(DataError, match="cannot be read"):
        parcel.pack(load_job(AUTO, [f"data.source={source}"]), target)


@beside_packages
@pytest.mark.parametrize("source", ["~nobody-of-that-name/text", "x" * 5000])
def test_a_path_that_no_system_takes_is_left_to_the_cluster(tmp_path: Path, source: str) -> None:
    parcel.pack(load_job(AUTO, [f"data.source={source}"]), tmp_path)
    assert load_job(tmp_path / "job.yaml").data.source == source


@beside_packages
def test_sources_and_a_tokenizer_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "parcel"
    target.mkdir()
    made_tokenizer(tmp_path / "tokenizer")
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"text": "the fox"}\n' * 90)
    listed = f"[{{source: '{tmp_path}/[ab].jsonl', weight: 2}}, {{source: '{tmp_path}/a.jsonl'}}, {{source: /there}}]"
    settings = [f"data.source={listed}", f"data.tokenizer={tmp_path / 'tokenizer'}", "data.seq_len=8"]
    job = load_job(AUTO, settings)
    parcel.pack(job, target)
    monkeypatch.chdir(target)
    there = load_job("job.yaml")
    assert [one.source for one in there.data.sources] == ["data/0/text", "data/1/a.jsonl", "/there"]
    assert there.fingerprint() == job.fingerprint()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here, packed = (one.data.model_copy(update={"source": one.data.source[:2]}) for one in (job, there))
    assert prepare(packed, tmp_path).fingerprint == prepare(here, tmp_path).fingerprint


@beside_packages
def test_data_of_the_cluster_keeps_its_path(tmp_path: Path) -> None:
    parcel.pack(load_job(AUTO, ["data.source=/shared/corpus"]), tmp_path)
    assert load_job(tmp_path / "job.yaml").data.source == "/shared/corpus"
    assert not (tmp_path / "data").exists()


@beside_packages
def test_too_much_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "MOST_DATA_BYTES", 1 << 20)
    source, target = tmp_path / "corpus", tmp_path / "parcel"
    source.write_bytes(bytes(3 << 20))
    target.mkdir()
    with pytest.raises(JobError, match="3 MiB is too large"):
        parcel.pack(load_job(AUTO, [f"data.source={source}"]), target)
