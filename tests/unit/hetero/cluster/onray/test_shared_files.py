"""What the driver does before ranks start, with agents that are not there."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch

from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.errors import ClusterError
from hetero.cluster.host.shared_files import ModelFolder, SharedFolder
from hetero.cluster.onray import shared_files
from hetero.cluster.onray.shared_files import Folder, Needs, prepare
from hetero.errors import render

HANGS = object()


class Remote:
    """An actor's method: it is called at once, and the answer stands for the call."""

    def __init__(self, method: Any) -> None:
        self.remote = method


class Agent:
    def __init__(self, node: str, why: str | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.seen: list[str] = []
        self._why = why
        self.node = Remote(lambda: node)
        self.reach, self.append = Remote(self._reach), Remote(self._append)
        self.compare = Remote(lambda model: ("machine", why))
        self.places: list[str] = []
        self.spool, self.append_saved = Remote(self.places.append), Remote(self._append_saved)

    def _reach(self, folder: SharedFolder, host: str) -> tuple[str, str | None]:
        self.seen.append(folder.marker)
        assert (Path(folder.path) / folder.marker).exists()
        return "machine", self._why

    def _append_saved(self, place: str, step: int, file: str, chunk: bytes) -> None:
        self._append(f"{place}@{step}/{file}", chunk)

    def _append(self, path: str, chunk: bytes) -> None:
        self.files[path] = self.files.get(path, b"") + chunk


@pytest.fixture(autouse=True)
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    here = types.SimpleNamespace(get_node_id=lambda: "head")
    monkeypatch.setattr(shared_files, "_answers", lambda calls, _: calls)
    monkeypatch.setattr(
        shared_files, "ray", types.SimpleNamespace(put=lambda chunk: chunk, get_runtime_context=lambda: here)
    )
    monkeypatch.setattr(shared_files, "CHUNK_BYTES", 4)


def test_files_go_to_other_nodes_only(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    path.write_bytes(b"0123456789")
    agents = {"a@0": Agent("head"), "b@0": Agent("other"), "b@1": Agent("third")}
    prepare(agents, Needs(files=(path,)), 1.0)
    assert [agent.files for agent in agents.values()] == [{}, *[{str(path): b"0123456789"}] * 2]


def test_a_folder_that_a_host_does_not_reach_is_named(tmp_path: Path) -> None:
    agents = {"a@0": Agent("head"), "b@1": Agent("other", "cannot write there (Read-only file system)")}
    with pytest.raises(ClusterError) as caught:
        prepare(agents, Needs(folders=(Folder("checkpoint.storage", tmp_path),)), 1.0)
    screen = render(caught.value)
    assert "host b@1 (machine) cannot write there (Read-only file system)" in screen
    assert "a@0" not in screen
    assert screen.startswith("checkpoint.storage")
    assert not list(tmp_path.iterdir()), "the proof is gone"


def test_a_folder_that_is_carried_need_not_be_reached(tmp_path: Path) -> None:
    folder = Folder("checkpoint.storage", tmp_path, carried=True)
    agents = {"a@0": Agent("head"), "b@1": Agent("other", "has no such folder")}
    assert prepare(agents, Needs(folders=(folder,)), 1.0) == {folder: ["b@1"]}
    assert [agent.places for agent in agents.values()] == [[], [str(tmp_path)]]
    assert prepare({"a@0": agents["a@0"]}, Needs(folders=(folder,)), 1.0) == {}


def test_a_host_that_does_not_answer_is_none_that_reaches_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, near = Agent("other"), Agent("head")
    hung.reach = Remote(lambda *_: HANGS)
    monkeypatch.setattr(
        shared_files, "_answers", lambda calls, _: {host: one for host, one in calls.items() if one is not HANGS}
    )
    folder = Folder("checkpoint.storage", tmp_path, carried=True)
    assert prepare({"a@0": near, "b@1": hung}, Needs(folders=(folder,)), 1.0) == {folder: ["b@1"]}
    assert [agent.places for agent in (near, hung)] == [[], [str(tmp_path)]]
    assert prepare({"b@1": hung}, Needs(folders=(Folder("--resume", tmp_path),)), 1.0) == {}, "the session will hear"


def test_a_checkpoint_to_go_on_from_is_brought_to_who_does_not_reach_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    place = {"w": (TensorLayout.replicated((3, 5), 1), 0)}
    piece = write_piece(
        store.piece_path(3, RankId("a", 0)), RankId("a", 0), {"w": {"parameter": torch.ones(3, 5)}}, place
    )
    store.commit(3, RunState(consumed_sequences=0, consumed_tokens=0, job_fingerprint="", plan={}), [piece])
    folder = Folder("--resume", tmp_path, proof="step-00000003/manifest.json", carried=True)
    agents = {"a@0": Agent("head"), "b@1": Agent("other", "has no such folder")}
    assert prepare(agents, Needs(folders=(folder,)), 1.0) == {folder: ["b@1"]}
    there = {path.name: path.read_bytes() for path in (tmp_path / "step-00000003").iterdir()}
    assert agents["b@1"].files == {f"{tmp_path}@3/{name}": data for name, data in there.items()}
    assert agents["a@0"].files == {}


def test_a_folder_to_read_from_is_proved_by_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    agent = Agent("other")
    prepare({"a@0": agent}, Needs(folders=(Folder("--resume", tmp_path, proof="manifest.json"),)), 1.0)
    assert agent.seen == ["manifest.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_folder_that_the_driver_cannot_write_to(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="the driver cannot write there"):
        prepare({}, Needs(folders=(Folder("checkpoint.storage", tmp_path / "none"),)), 1.0)


def test_a_host_with_another_model_is_named() -> None:
    agents = {"a@0": Agent("head"), "b@1": Agent("other", "has another model there")}
    prepare({"a@0": agents["a@0"]}, Needs(model=ModelFolder("org/name", "f")), 1.0)
    with pytest.raises(ClusterError) as caught:
        prepare(agents, Needs(model=ModelFolder("org/name", "f")), 1.0)
    assert (caught.value.key, caught.value.value) == ("model.hf", "org/name")
    assert caught.value.rule.endswith("\n  host b@1 (machine) has another model there")
