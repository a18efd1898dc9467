"""What we write the format's own library reads, and the other way round."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hetero.checkpoint.durable import checksum
from hetero.checkpoint.tensor_file import CHUNK_BYTES, TensorFile, write_tensors

TENSORS = {
    "flags": torch.tensor([True, False, True]),
    "a/parameter": torch.arange(24.0).view(2, 3, 4),
    "b/exp_avg": torch.arange(6).to(torch.bfloat16).view(3, 2),
    "none": torch.empty(0, 4),
    "one": torch.tensor(7, dtype=torch.int64),
    "long": torch.rand(CHUNK_BYTES // 8, 3, dtype=torch.float64),
}


def test_the_library_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "piece"
    with path.open("wb") as file:
        digest, size = write_tensors(file, TENSORS)
    assert (digest, size) == (checksum(path), path.stat().st_size)
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_any_box_of_what_the_library_wrote_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "piece")
    with (tmp_path / "piece").open("rb") as file:
        ours = TensorFile(file)
        assert torch.equal(
            ours.read("a/parameter", (slice(1, 2), slice(0, 2), slice(1, 4))), TENSORS["a/parameter"][1:2, 0:2, 1:4]
        )
        assert torch.equal(ours.read("b/exp_avg", (slice(1, 3), slice(0, 1))), TENSORS["b/exp_avg"][1:3, 0:1])
        assert torch.equal(ours.read("one", ()), TENSORS["one"])
        assert ours.read("none", (slice(0, 0), slice(0, 4))).shape == (0, 4)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, (20).to_bytes(8, "little") + b"{}"])
def test_what_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|ends"):
        TensorFile(io.BytesIO(content))


def _written(header: object) -> TensorFile:
    text = json.dumps(header).encode()
    return TensorFile(io.BytesIO(len(text).to_bytes(8, "little") + text + bytes(16)))


FOUR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "header",
    [
        {"x": FOUR},
        ["w"],
        {"w": 5},
        {"w": FOUR | {"dtype": "F3"}},
        {"w": FOUR | {"data_offsets": [0, 12]}},
        {"w": FOUR | {"data_offsets": [8, 24]}},
        {"w": FOUR | {"data_offsets": [-16, 0]}},
        {"w": FOUR | {"data_offsets": [16, 0], "shape": [-4]}},
        {"w": FOUR | {"data_offsets": [0]}},
        {"w": FOUR | {"shape": [10**15], "data_offsets": [0, 4 * 10**15]}},
        {"w": FOUR | {"shape": ["4"]}},
        {"w": FOUR | {"shape": [True, 4]}},
        {"w": FOUR | {"shape": [-2, -2]}},
        {"w": FOUR | {"shape": [0, -5], "data_offsets": [0, 0]}},
        {"w": FOUR | {"shape": [0, 2**63], "data_offsets": [0, 0]}},
        {"w": FOUR | {"shape": [0, 2**32, 2**32], "data_offsets": [0, 0]}},
        {"w": FOUR | {"shape": "", "data_offsets": [0, 4]}},
    ],
)
def test_what_a_file_does_not_hold_is_not_made_up(header: object) -> None:
    for box in ((), (slice(0, 0),), (slice(0, 4),)):
        with pytest.raises((LookupError, TypeError, ValueError)):
            _written(header).read("w", box)


def test_rows_beyond_a_tensor_are_not_those_of_the_next() -> None:
    two = _written({"w": FOUR | {"shape": [2], "data_offsets": [0, 8]}, "x": FOUR | {"data_offsets": [8, 16]}})
    assert two.read("w", (slice(0, 2),)).numel() == 2
    with pytest.raises(ValueError, match="2 rows"):
        two.read("w", (slice(0, 4),))


def test_a_header_that_lies_too_deep_is_refused() -> None:
    text = b"[" * 100_000
    with pytest.raises(ValueError, match="deep"):
        TensorFile(io.BytesIO(len(text).to_bytes(8, "little") + text))
