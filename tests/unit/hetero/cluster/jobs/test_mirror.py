"""A run directory that is followed through a shell command's log, and what becomes of command and log."""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hetero.cluster.errors import ClusterError
from hetero.cluster.jobs import mirror, relay
from hetero.cluster.jobs.mirror import mirrored, write
from hetero.cluster.jobs.relay import MOST_BYTES, DamagedPiece, FilePiece, PieceReader, command
from tests.patience import WAIT_S


class LocalServer:
    """A job server whose cluster is this machine: commands run in its shell, one name each."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.errands: dict[str, subprocess.Popen[str]] = {}
        self.ended: set[str] = set()

    def job(self, id_: str) -> Any:
        return SimpleNamespace(run_dir=str(self._run_dir))

    def begin_errand(self, line: str) -> str:
        id_ = f"errand-{len(self.errands)}"
        self.errands[id_] = subprocess.Popen(["sh", "-c", line], stdout=subprocess.PIPE, text=True)
        return id_

    def printed(self, id_: str) -> Iterator[str]:
        output = self.errands[id_].stdout
        assert output is not None
        yield f"Running entrypoint for job {id_}: {command('/x', {}, 1)}\n"
        while text := os.read(output.fileno(), 4096).decode():
            yield text
        output.close()

    def end_errand(self, id_: str) -> None:
        if id_ in self.errands:
            self.errands[id_].kill()
            self.errands[id_].wait()
            self.ended.add(id_)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    monkeypatch.setattr(mirror, "AGAIN_S", 0.1)
    return LocalServer(tmp_path / "a run")


@contextlib.contextmanager
def opened(server: LocalServer) -> Iterator[Path]:
    with mirrored(server, "job-1") as folder:  # type: ignore[arg-type]
        yield folder


@pytest.mark.slow
def test_a_copy_follows_its_run(server: LocalServer, tmp_path: Path) -> None:
    run, noise = tmp_path / "a run", os.urandom(200_000)
    with opened(server) as copy:
        assert (copy.name, list(copy.iterdir())) == ("job-1", [])
        run.mkdir()
        (run / "tokens.bin").write_bytes(noise)
        for plan in ("{}", "{1}"):
            (run / "plan.json").write_text(plan)
            with (run / "metrics.jsonl").open("ab") as file:
                file.write(noise)
            until(lambda plan=plan: (copy / "plan.json").exists() and (copy / "plan.json").read_text() == plan)
        until(lambda: (copy / "metrics.jsonl").read_bytes() == noise + noise)
        server.errands["errand-0"].kill()
        (run / "events.jsonl").write_text('{"kind": "finished"}\n')
        until(lambda: (copy / "events.jsonl").exists())
        assert sorted(path.name for path in copy.iterdir()) == ["events.jsonl", "metrics.jsonl", "plan.json"]
        assert (copy / "metrics.jsonl").read_bytes() == noise + noise, "what is there is not told again"
    assert not copy.exists()
    assert server.ended == set(server.errands) == {"errand-0", "errand-1"}
    assert not [thread for thread in threading.enumerate() if thread.name == "mirror"]


def test_a_cluster_that_tells_nothing(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "FIRST_S", 0.2)
    with pytest.raises(ClusterError, match="has not told within"), opened(server):
        pass
    assert server.ended == set(server.errands)


@pytest.mark.slow
def test_the_command_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("name: a")
    done = subprocess.run(
        ["sh", "-c", command(str(tmp_path), {}, 1, 0.1)], capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    assert done.stderr == ""
    assert list(PieceReader().read(done.stdout)) == [FilePiece("job.yaml", 0, b"name: a"), None]


def test_pieces_come_whole_or_not_at_all(tmp_path: Path) -> None:
    write(tmp_path, FilePiece("metrics.jsonl", 0, b"abc"))
    for offset in (0, 2, 4):
        with pytest.raises(DamagedPiece):
            write(tmp_path, FilePiece("metrics.jsonl", offset, b"d"))
    write(tmp_path, FilePiece("metrics.jsonl", 3, b"d"))
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"abcd"
    torn = "-----PIECE metrics.jsonl 0-----\nH4sIAAAA\n-----END-----\n"
    with pytest.raises(DamagedPiece):
        list(PieceReader().read(torn))
    assert list(PieceReader().read(torn[:-15])) == []


@pytest.mark.parametrize("name", ["../metrics.jsonl", "..", "other.jsonl", "/etc/passwd"])
def test_a_cluster_writes_no_file_that_is_not_followed(tmp_path: Path, name: str) -> None:
    with pytest.raises(DamagedPiece):
        write(tmp_path, FilePiece(name, 0, b"d"))
    assert not list(tmp_path.iterdir())


def piece_of(content: bytes, offset: str = "0") -> str:
    told = base64.b64encode(gzip.compress(content)).decode()
    return f"-----PIECE metrics.jsonl {offset}-----\n{told}\n-----END-----\n"


def test_a_piece_that_unpacks_to_more_than_any_is_damaged() -> None:
    """Of a few kilobytes."""
    (largest,) = PieceReader().read(piece_of(bytes(MOST_BYTES)))
    assert largest is not None
    assert len(largest.content) == MOST_BYTES
    with pytest.raises(DamagedPiece, match="larger"):
        list(PieceReader().read(piece_of(bytes(MOST_BYTES + 1))))
    assert list(PieceReader().read(piece_of(b"a", offset="9" * 5000))) == []


def test_a_log_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MOST_LETTERS", 10_000)
    reader = PieceReader()
    for _ in range(100):
        assert list(reader.read("A" * 10_000)) == []
    assert len(reader._rest) < 10_000
    list(reader.read("\n-----PIECE metrics.jsonl 0-----\n"))
    with pytest.raises(DamagedPiece, match="longer"):
        list(reader.read(("A" * 1000 + "\n") * 100))


def test_a_mirrored_file_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "MOST_BYTES", 2)
    write(tmp_path, FilePiece("metrics.jsonl", 0, b"ab"))
    with pytest.raises(DamagedPiece):
        write(tmp_path, FilePiece("metrics.jsonl", 2, b"c"))
