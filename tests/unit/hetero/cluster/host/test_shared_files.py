"""Shipped files and shared folders, as one host has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hetero.cluster.host.shared_files import ModelFolder, SharedFolder, ShippedFiles, compare, reach
from hetero.data.stream import TokenStream
from hetero.huggingface.folder import HfFolder
from hetero.words.orders import Configure, Lease
from hetero.words.spec import RunSpec, TextPart
from tests.unit.hetero.cluster.specs import epoch_spec
from tests.unit.hetero.huggingface.written import write_folder


def reading(path: str) -> RunSpec:
    spec = epoch_spec()
    return spec.model_copy(update={"text": spec.text.model_copy(update={"path": path})})


def test_a_shipped_file_is_found_under_its_new_path_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shipped = ShippedFiles()
    text = bytes(range(200))
    for start in range(0, len(text), 64):
        shipped.append("/there/tokens.bin", text[start : start + 64])
    spec = reading("/there/tokens.bin")
    order = shipped.localized(Configure(spec))
    assert isinstance(order, Configure)
    path = order.spec.text.path
    assert order.spec == reading(path)
    assert Path(path).read_bytes() == text
    assert len(TokenStream(path, 8, 257)) == 12
    assert not list(tmp_path.iterdir())
    shipped.close()
    assert not Path(path).exists()


def test_each_file_of_documents_is_found() -> None:
    part = TextPart(tokens="/there/tokens.bin", pieces="/there/pieces.bin", vocab=257)
    spec = reading(part.tokens)
    spec = spec.model_copy(update={"text": spec.text.model_copy(update={"parts": (part,)})})
    shipped = ShippedFiles()
    for path in part.files:
        shipped.append(path, path.encode())
    order = shipped.localized(Configure(spec))
    assert isinstance(order, Configure)
    (found,) = order.spec.text.parts
    assert [Path(path).read_text() for path in found.files] == list(part.files)
    assert found.learnt is None
    shipped.close()


def test_other_orders_and_unshipped_paths_stay() -> None:
    shipped = ShippedFiles()
    order = Configure(reading("/there"))
    assert shipped.localized(order) is order
    shipped.append("/elsewhere", b"")
    assert shipped.localized(Lease(0, 8)) == Lease(0, 8)
    assert shipped.localized(order) == order
    shipped.close()


def test_a_shared_folder_is_reached(tmp_path: Path) -> None:
    (tmp_path / "marker").touch()
    assert reach(SharedFolder(str(tmp_path), "marker", written=True), "a@0") is None
    assert os.listdir(tmp_path) == ["marker"]


def test_why_a_folder_is_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hetero.cluster.host.shared_files.SEEN_WITHIN_S", 0.1)
    folder = SharedFolder(str(tmp_path), "marker", written=True)
    assert reach(folder, "a@0") == "does not see what the driver wrote there"
    assert reach(SharedFolder(str(tmp_path / "none"), "marker", written=False), "a@0") == "has no such folder"
    (tmp_path / "marker").touch()
    (tmp_path / "marker-a@0").mkdir()
    assert "cannot write there" in str(reach(folder, "a@0"))
    assert reach(SharedFolder(str(tmp_path), "marker", written=False), "a@0") is None


def test_a_model_is_the_same_or_it_is_said_why_not(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    assert compare(ModelFolder(str(folder), HfFolder(folder).fingerprint)) is None
    assert compare(ModelFolder(str(folder), "another")) == "has another model there"
    assert compare(ModelFolder(str(tmp_path / "none"), "any")) == "there is no such folder"
