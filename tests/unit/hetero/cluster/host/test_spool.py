"""What a host saves on its own disk comes to the driver's whole, and little of it is anywhere in between."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.control.events import Event, PiecesSaved, Trouble, Warned
from hetero.cluster.host.spool import MOST_PARTS, FilePart, Outgoing, Spool
from hetero.cluster.onray.arrivals import Arrivals
from hetero.words.orders import Configure, Lease
from hetero.words.piece import StoredPiece
from tests.unit.hetero.cluster.specs import epoch_spec

PLACE, STEP, PART, PATIENCE_S = "/driver/checkpoints", 7, 100, 60.0


class Link:
    """From a host to its driver, which takes only when it is told to."""

    def __init__(self) -> None:
        self.sent: queue.SimpleQueue[list[Outgoing]] = queue.SimpleQueue()
        self.spool = Spool("a@0", self.sent.put, PART)

    def take(self) -> list[Outgoing]:
        sent = self.sent.get(timeout=PATIENCE_S)
        self.spool.taken(sent)
        return sent


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    (tmp_path / "host").mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "host"))
    link = Link()
    yield link
    link.spool.close()


def _localized(link: Link, **changes: object) -> Configure:
    order = link.spool.localized(Configure(epoch_spec().model_copy(update=changes)))
    assert isinstance(order, Configure)
    return order


def _saved(link: Link, index: int = 0) -> StoredPiece:
    """By a rank of the host, where it was told to."""
    folder = _localized(link, checkpoint_folder=PLACE).spec.checkpoint_folder
    store, state = CheckpointStore(str(folder)), {"w": {"parameter": torch.randn(10, 20)}}
    layout = TensorLayout.cut((20, 20), 0, [(0, 10), (10, 20)])
    return write_piece(store.piece_path(STEP, RankId("a", index)), RankId("a", index), state, {"w": (layout, index)})


def test_what_was_saved_there_is_a_checkpoint_here(link: Link, tmp_path: Path) -> None:
    link.spool.stand_for(PLACE)
    pieces = [_saved(link, index) for index in (0, 1)]
    link.spool.deliver([PiecesSaved("a@0", STEP, pieces)])
    arrivals, heard, store = Arrivals(tmp_path / "driver"), list[Event](), CheckpointStore(tmp_path / "driver")
    while not heard:
        assert store.latest() is None
        heard += arrivals.received(link.take())
    assert heard == [PiecesSaved("a@0", STEP, pieces)]
    store.commit(STEP, RunState(consumed_sequences=0, consumed_tokens=0, job_fingerprint="", plan={}), pieces)
    store.verify(STEP)
    assert not [path for path in (tmp_path / "host").rglob("*") if path.is_file()], "what has left is removed"
    link.spool.close()
    assert not list((tmp_path / "host").iterdir())


def test_few_parts_are_under_way_and_other_events_pass_them(link: Link) -> None:
    link.spool.stand_for(PLACE)
    piece = _saved(link)
    assert piece.size_bytes > 5 * PART
    link.spool.deliver([PiecesSaved("a@0", STEP, [piece]), Warned("a@0", "one")])
    taken = [link.sent.get(timeout=PATIENCE_S) for _ in range(MOST_PARTS + 1)]
    link.spool.deliver([Warned("a@0", "two")])
    assert link.sent.get(timeout=PATIENCE_S) == [Warned("a@0", "two")], "before the parts that have no room yet"
    found = [one for sent in taken for one in sent]
    assert Warned("a@0", "one") in found
    assert sum(isinstance(one, FilePart) for one in found) == MOST_PARTS
    link.spool.taken(found)
    while not isinstance(link.take()[0], PiecesSaved):
        pass


def test_a_file_that_is_gone_is_told(link: Link) -> None:
    link.spool.stand_for(PLACE)
    piece = _saved(link).model_copy(update={"file": "gone.safetensors"})
    link.spool.deliver([PiecesSaved("a@0", STEP, [piece])])
    (trouble,) = link.take()
    assert isinstance(trouble, Trouble)
    assert "cannot send what was saved" in trouble.cause


def test_ranks_read_what_was_brought_here(link: Link) -> None:
    link.spool.stand_for("/driver/earlier")
    for chunk in (b"one", b"two"):
        link.spool.append("/driver/earlier", 3, "manifest.json", chunk)
    spec = _localized(link, state="checkpoint", resume_folder="/driver/earlier", checkpoint_folder="/shared").spec
    assert (CheckpointStore(str(spec.resume_folder)).folder(3) / "manifest.json").open("rb").read() == b"onetwo"
    assert spec.checkpoint_folder == "/shared", "which this host reaches"
    assert link.spool.localized(Lease(0, 1)) == Lease(0, 1)
    saved = PiecesSaved("a@0", STEP, [])
    link.spool.deliver([Warned("a@0", "one"), saved])
    assert link.take() == [Warned("a@0", "one"), saved], "no file of it lies here"


def test_of_a_step_that_has_left_nothing_stays(link: Link) -> None:
    link.spool.stand_for(PLACE)
    piece = _saved(link)
    folder = Path(str(_localized(link, checkpoint_folder=PLACE).spec.checkpoint_folder))
    (stray,) = folder.iterdir()
    (stray / "model-00001-of-00001.safetensors").write_bytes(b"sent by nobody")
    link.spool.deliver([PiecesSaved("a@0", STEP, [piece])])
    while not isinstance(link.take()[0], PiecesSaved):
        pass
    assert not stray.exists()


@pytest.mark.parametrize("file", ["../out", "/out", "below/out"])
def test_a_part_goes_nowhere_else(file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain name"):
        list(Arrivals(tmp_path).received([FilePart(1, file, b"x", True)]))
    assert not list(tmp_path.iterdir())
