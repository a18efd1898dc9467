"""What a cluster sends is a stranger's archive: plain files come out of it, in bounds, and nothing else."""

from __future__ import annotations

import base64
import gzip
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hetero.cluster.errors import ClusterError
from hetero.cluster.jobs.fetch import BEGIN, END, MARK, fetch
from hetero.cluster.jobs.unpack import Refused, TooMuch, unpack

GIB = 1 << 30


def member(name: str, type_: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> tuple[Any, bytes]:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = type_, link, len(content)
    return found, content


def archive(*members: tuple[Any, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=form, compresslevel=1) as tar:
        for header, content in members:
            tar.addfile(header, io.BytesIO(content))
    return packed.getvalue()


def climbing(victim: str) -> bytes:
    """CVE-2025-4517: folders and links so long that the resolved path is cut off, and the check is of another path."""
    folder, steps = "d" * 247, "abcdefghijklmnop"
    members, path = [], ""
    for step in steps:
        members.append(member(os.path.join(path, folder), tarfile.DIRTYPE))
        members.append(member(os.path.join(path, step), tarfile.SYMTYPE, folder))
        path = os.path.join(path, folder)
    link = os.path.join("/".join(steps), "l" * 254)
    members.append(member(link, tarfile.SYMTYPE, "../" * len(steps)))
    members.append(member("escape", tarfile.SYMTYPE, f"{link}/../{victim}"))
    members.append(member("flag", tarfile.LNKTYPE, "escape"))
    members.append(member("flag", content=b"owned"))
    return archive(*members)


def server(packed: bytes) -> Any:
    log = f"{BEGIN}\n{base64.encodebytes(packed).decode()}{END}\n"
    return SimpleNamespace(job=lambda id_: SimpleNamespace(run_dir="/run"), read=lambda command, seconds: log)


def refused(packed: bytes, folder: Path, most_bytes: int = GIB) -> str:
    with pytest.raises(ClusterError) as raised:
        fetch(server(packed), "job-1", folder, most_bytes)
    return raised.value.rule


def test_links_too_long_to_check_lead_nowhere(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "copy"
    victim.write_text("mine")
    refused(climbing("victim"), folder)
    assert victim.read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == [MARK]


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    odd = [
        member("link", tarfile.SYMTYPE, "/etc/passwd"), member("hard", tarfile.LNKTYPE, "metrics.jsonl"),
        member("pipe", tarfile.FIFOTYPE), member("disk", tarfile.BLKTYPE), member("deep", tarfile.DIRTYPE),
    ]  # fmt: skip
    files = fetch(server(archive(*odd, member("./deep/" + "n" * 150, content=b"a"))), "job-1", tmp_path / "copy")
    assert files == [tmp_path / "copy" / "deep" / ("n" * 150)]
    assert files[0].read_bytes() == b"a"


@pytest.mark.parametrize("name", ["../a", "/tmp/hetero-a", "a/../../b", "\x1b[2Ja", "d/" * 40 + "a", ".", "a\u202eb"])
def test_names_that_no_run_gives_are_refused(tmp_path: Path, name: str) -> None:
    assert "damaged" in refused(archive(member(name, content=b"a")), tmp_path / "copy")
    assert sorted(os.listdir(tmp_path)) == ["copy"]
    assert os.listdir(tmp_path / "copy") == [MARK]


def test_what_unpacks_to_more_is_refused_whatever_its_headers_say(tmp_path: Path) -> None:
    bomb = archive(*(member(f"f{i}", content=bytes(1 << 20)) for i in range(8)))
    assert len(bomb) < 1 << 17
    assert "unpacks to more than" in refused(bomb, tmp_path / "copy", 4 << 20)
    assert os.listdir(tmp_path / "copy") == [MARK], "nothing is left of it"
    assert len(fetch(server(bomb), "job-1", tmp_path / "copy", 16 << 20)) == 8


def test_a_name_or_comment_is_no_way_around_the_bounds(tmp_path: Path) -> None:
    for type_ in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGLINK):
        header, content = member("x", type_, content=bytes(2 << 20))
        packed = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + content + bytes(1024), 1)
        with pytest.raises((Refused, TooMuch)):
            unpack(packed, tmp_path, 1 << 20)


def test_more_files_than_a_run_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hetero.cluster.jobs.unpack.MOST_FILES", 5)
    assert "5 files" in refused(archive(*(member(f"f{i}") for i in range(6))), tmp_path / "copy")


def test_a_header_that_is_no_text_is_damaged(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("\xff"))
    assert "damaged" in refused(packed.getvalue(), tmp_path / "copy")


def test_a_cut_or_contradictory_archive_is_damaged(tmp_path: Path) -> None:
    whole = archive(member("a", content=b"a" * 9000))
    twice = archive(member("a", content=b"1"), member("a", content=b"2"))
    for packed in (whole[:60], b"no archive", twice, archive(member("a"), member("a/b"))):
        assert "damaged" in refused(packed, tmp_path / "copy")


def test_only_a_copy_of_the_same_job_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metrics.jsonl").write_text("mine")
    packed = archive(member("metrics.jsonl", content=b"new"), member(MARK, content=b"job-2"))
    assert "something else" in refused(packed, tmp_path / "mine")
    assert (tmp_path / "mine" / "metrics.jsonl").read_text() == "mine"
    for _ in range(2):
        fetch(server(packed), "job-1", tmp_path / "copy")
    with pytest.raises(ClusterError, match="something else"):
        fetch(server(packed), "job-2", tmp_path / "copy")


def test_a_link_that_stands_in_the_copy_is_not_followed(tmp_path: Path) -> None:
    packed = archive(member("deep/a", content=b"new"))
    fetch(server(archive(member("b"))), "job-1", tmp_path / "copy")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "copy" / "deep").symlink_to(tmp_path / "elsewhere")
    assert "leads" in refused(packed, tmp_path / "copy")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_copy_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        fetch(server(archive(member("deep/a", content=b"new"))), "job-1", tmp_path / "runs" / "copy")
        found = [tmp_path / "runs", *(tmp_path / "runs").rglob("*")]
        assert [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_cluster_sends_no_more_than_is_allowed(tmp_path: Path) -> None:
    """Of what does not compress, in the shell that the cluster would run it in."""
    there = tmp_path / "there"
    (there / "data").mkdir(parents=True)
    (there / "data" / "tokens.bin").write_bytes(bytes(9))
    (there / "large").write_bytes(os.urandom(3 << 20))

    def read(command: str, seconds: float) -> str:
        line = command.replace("sleep 1", "true")
        log = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
        sent.append(len(log))
        return log

    sent: list[int] = []
    shell: Any = SimpleNamespace(job=lambda id_: SimpleNamespace(run_dir=str(there)), read=read)
    with pytest.raises(ClusterError, match="unpacks to more than"):
        fetch(shell, "job-1", tmp_path / "copy", 1 << 20)
    assert sent[0] < 3 << 20
    assert fetch(shell, "job-1", tmp_path / "copy") == [tmp_path / "copy" / "large"]
    assert (tmp_path / "copy" / "large").read_bytes() == (there / "large").read_bytes()
