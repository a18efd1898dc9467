"""What is saved under one layout is read under any other, bit for bit."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bridge.layout.layout import Shape, TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.durable import checksum
from hetero.checkpoint.errors import CheckpointError, DamagedCheckpoint
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import CheckpointReader, write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.checkpoint.tensor_file import write_tensors
from tests.examples import out_of_100
from tests.unit.bridge.layout.layouts import tilings

RUN = RunState(consumed_sequences=32, consumed_tokens=8192, job_fingerprint="f", plan={}, scalars={"updates": 4})
RANK, NAME = RankId("nvidia", 0), "units.1.q.weight"
KINDS = {"parameter": torch.float32, "exp_avg": torch.float32, "exp_avg_sq": torch.bfloat16}
Tensors = dict[str, dict[str, torch.Tensor]]
Layouts = dict[str, TensorLayout]


@st.composite
def partitions(draw: st.DrawFn, shape: Shape) -> TensorLayout:
    """Cut anywhere along any dimensions, for one owner per part; other ranks own nothing of it."""
    parts = [*draw(tilings(shape, 5)), *[None] * draw(st.integers(0, 2))]
    return TensorLayout(shape, tuple(draw(st.permutations(parts))))


shapes = st.lists(st.integers(1, 9), max_size=3).map(tuple)
names = st.integers(0, 5).map("units.{}.q.weight".format)
pairs = shapes.flatmap(lambda shape: st.tuples(partitions(shape), partitions(shape)))
moves = st.dictionaries(names, pairs, min_size=1)


def values(layouts: Layouts, seed: int = 0) -> Tensors:
    random = torch.Generator().manual_seed(seed)
    return {
        name: {kind: torch.randn(layout.shape, generator=random).to(dtype) for kind, dtype in KINDS.items()}
        for name, layout in layouts.items()
    }


def shard(tensor: torch.Tensor, layout: TensorLayout, position: int) -> torch.Tensor:
    return tensor[tuple(slice(start, stop) for start, stop in layout.region(position))]


def save(store: CheckpointStore, step: int, tensors: Tensors, layouts: Layouts) -> None:
    """One rank per position; each writes what it owns of all tensors."""
    pieces = []
    for position in range(max(layout.size for layout in layouts.values())):
        rank = RankId("nvidia", position)
        places = {
            name: (layout, position)
            for name, layout in layouts.items()
            if position < layout.size and layout.regions[position] is not None
        }
        state = {
            name: {kind: shard(value, layout, position) for kind, value in tensors[name].items()}
            for name, (layout, _) in places.items()
        }
        if state:
            pieces.append(write_piece(store.piece_path(step, rank), rank, state, places))
    store.commit(step, RUN, pieces)


@given(moves, st.integers(0, 99))
@out_of_100(40)
def test_any_partition_is_read_under_any_other(move: dict[str, tuple[TensorLayout, TensorLayout]], seed: int) -> None:
    written = {name: source for name, (source, _) in move.items()}
    tensors = values(written, seed)
    with TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder))
        save(store, 4, tensors, written)
        store.verify(4)
        with CheckpointReader(store, 4) as reader:
            assert reader.names() == set(move)
            for name, (_, wanted) in move.items():
                assert (reader.kinds(name), reader.shape(name)) == (set(KINDS), wanted.shape)
                for kind, dtype in KINDS.items():
                    for (position,) in wanted.replica_groups():
                        found = reader.read(name, kind, wanted.region(position))
                        assert found.dtype == dtype
                        assert torch.equal(found, shard(tensors[name][kind], wanted, position))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path)
    layouts = {"units.1.q.weight": TensorLayout.split((6, 4), 0, 3)}
    save(store, 4, values(layouts), layouts)
    return store


def test_a_box_across_pieces_is_assembled(store: CheckpointStore) -> None:
    expected = values({"units.1.q.weight": TensorLayout.replicated((6, 4), 1)})["units.1.q.weight"]["exp_avg"]
    with CheckpointReader(store, 4) as reader:
        found = reader.read("units.1.q.weight", "exp_avg", ((1, 5), (2, 3)))
        assert reader.manifest.run == RUN
    assert torch.equal(found, expected[1:5, 2:3])


def test_what_was_read_is_the_reader_s_own(store: CheckpointStore) -> None:
    with CheckpointReader(store, 4) as reader:
        found = reader.read("units.1.q.weight", "parameter", ((0, 2), (0, 4)))
    found.zero_()
    store.verify(4)


@pytest.mark.parametrize(
    ("name", "kind", "region", "rule"),
    [
        ("units.1.k.weight", "parameter", ((0, 6), (0, 4)), "holds nothing of this tensor"),
        ("units.1.q.weight", "momentum_buffer", ((0, 6), (0, 4)), "holds exp_avg, exp_avg_sq, parameter of"),
        ("units.1.q.weight", "parameter", ((0, 7), (0, 4)), r"has the shape \(6, 4\)"),
        ("units.1.q.weight", "parameter", ((0, 6),), r"has the shape \(6, 4\)"),
    ],
)
def test_what_is_not_stored_is_explained(store: CheckpointStore, name: str, kind: str, region, rule: str) -> None:
    with CheckpointReader(store, 4) as reader, pytest.raises(CheckpointError, match=rule):
        reader.read(name, kind, region)


def test_a_missing_part_is_never_made_up(store: CheckpointStore) -> None:
    with CheckpointReader(store, 4) as reader:
        reader._boxes["units.1.q.weight", "parameter"].pop()
        with pytest.raises(DamagedCheckpoint, match="16 elements"):
            reader.read("units.1.q.weight", "parameter", ((0, 6), (0, 4)))


def test_views_are_saved_as_what_they_show(tmp_path: Path) -> None:
    flat = torch.arange(24.0)
    layout = TensorLayout.replicated((3, 2), 1)
    state = {"a": {"parameter": flat[2:8].view(3, 2)}, "b": {"parameter": flat[12:18].view(2, 3).T}}
    store = CheckpointStore(tmp_path)
    rank = RankId("nvidia", 0)
    entry = write_piece(store.piece_path(1, rank), rank, state, {"a": (layout, 0), "b": (layout, 0)})
    store.commit(1, RUN, [entry])
    assert entry.size_bytes < 24 * 4 + 500
    with CheckpointReader(store, 1) as reader:
        for name in state:
            assert torch.equal(reader.read(name, "parameter", layout.region(0)), state[name]["parameter"])


def test_a_shard_of_another_shape_than_its_box_is_refused(tmp_path: Path) -> None:
    places = {"a": (TensorLayout.split((5, 2), 0, 2), 1)}
    with pytest.raises(ValueError, match=r"shape \(3, 2\), its box has \(2, 2\)"):
        write_piece(tmp_path / "piece", RankId("nvidia", 1), {"a": {"parameter": torch.zeros(3, 2)}}, places)
    assert list(tmp_path.iterdir()) == []


def test_a_piece_that_is_removed_under_a_reader_is_explained(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    layouts = {"w": TensorLayout.replicated((3,), 1)}
    save(store, 4, values(layouts), layouts)
    with CheckpointReader(store, 4) as reader:
        (store.folder(4) / reader.manifest.pieces[0].file).unlink()
        with pytest.raises(DamagedCheckpoint, match="the run that saved it may have removed it"):
            reader.read("w", "parameter", ((0, 3),))


@pytest.mark.parametrize(
    "tensors",
    [{"x": torch.zeros(2, 4)}, {}, {f"{NAME}/parameter": torch.zeros(4, 2)}, {f"{NAME}/parameter": torch.zeros(8)}],
)
@pytest.mark.parametrize("address", ["", "local://"])
def test_a_piece_that_is_another_than_its_manifest_says_is_damaged(
    tmp_path: Path, tensors: dict[str, torch.Tensor], address: str
) -> None:
    """Whatever its checksum says."""
    content = BytesIO()
    write_tensors(content, tensors)
    _refused(tmp_path, content.getvalue(), address)


@pytest.mark.parametrize(
    ("shape", "end"), [([-2, -4], 32), ([0, -5], 0), ([0, 2**63], 0), ([0, 2**62, 2**62], 0), ([2, 2**70], 32)]
)
@pytest.mark.parametrize("address", ["", "local://"])
def test_a_piece_of_a_shape_that_no_tensor_has_is_damaged(
    tmp_path: Path, shape: list[int], end: int, address: str
) -> None:
    header = json.dumps({f"{NAME}/parameter": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    _refused(tmp_path, len(header).to_bytes(8, "little") + header + bytes(end), address)


def _refused(folder: Path, content: bytes, address: str) -> None:
    """As a piece that has the checksum of its manifest, which tells of a tensor of 2 x 4."""
    layout = TensorLayout.replicated((2, 4), 1)
    store = CheckpointStore(folder)
    made = write_piece(store.piece_path(4, RANK), RANK, {NAME: {"parameter": torch.ones(2, 4)}}, {NAME: (layout, 0)})
    path = store.folder(4) / made.file
    path.write_bytes(content)
    store.commit(4, RUN, [made.model_copy(update={"checksum": checksum(path), "size_bytes": len(content)})])
    store.verify(4)
    with CheckpointReader(CheckpointStore(f"{address}{folder}"), 4) as reader:
        for region in (((0, 2), (0, 4)), ((0, 1), (1, 3))):
            with pytest.raises(DamagedCheckpoint, match=rf"does not hold {NAME}/parameter") as caught:
                reader.read(NAME, "parameter", region)
            assert "frame #" not in str(caught.value), "where in torch"


def test_a_piece_that_is_none_is_damaged(store: CheckpointStore) -> None:
    for piece in store.manifest(4).pieces:
        (store.folder(4) / piece.file).write_bytes(b"\xff" * piece.size_bytes)
    with CheckpointReader(store, 4) as reader, pytest.raises(DamagedCheckpoint, match="does not hold"):
        reader.read(NAME, "parameter", ((0, 6), (0, 4)))
