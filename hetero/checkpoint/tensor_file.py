"""The safetensors format, as a stream: written in one pass with its checksum, read by byte ranges from any file.

The format's own library writes to a path alone, and its checksum would be a second pass over the bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from typing import Any, BinaryIO

import torch
import xxhash

CHUNK_BYTES = 1 << 20
MOST_HEADER_BYTES = 100_000_000
"""The format's own limit."""
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


def write_tensors(file: BinaryIO, tensors: Mapping[str, torch.Tensor]) -> tuple[str, int]:
    """Writes contiguous tensors of the CPU; the xxh3-64 of what was written, in hexadecimal, and its bytes."""
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # so that each is aligned
    digest, size = xxhash.xxh3_64(), 0
    for part in (memoryview(_header(ordered)), *(_bytes(tensor) for _, tensor in ordered)):
        for start in range(0, len(part), CHUNK_BYTES):
            chunk = part[start : start + CHUNK_BYTES]
            file.write(chunk)
            digest.update(chunk)
        size += len(part)
    return digest.hexdigest(), size


class TensorFile:
    """Reads parts of tensors from an open file, which stays the caller's. Raises ValueError for another format."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, os.SEEK_END)
        length = int.from_bytes(self._range(0, 8), "little")
        if not 0 < length <= MOST_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes")
        try:
            self._entries: dict[str, Any] = json.loads(self._range(8, 8 + length))
        except RecursionError:
            raise ValueError("a header that lies too deep") from None
        self._zero = 8 + length

    def read(self, name: str, box: tuple[slice, ...]) -> torch.Tensor:
        """A box of a tensor, by whole rows of its first dimension; all of the tensor without one. Raises LookupError,
        TypeError and ValueError where the file tells of no such tensor."""
        entry = self._entries[name]
        dtype, shape, (begin, end) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if not _is_shape(shape):
            raise ValueError("a shape that no tensor has")
        row, extent = dtype.itemsize * prod(shape[1:]), shape[0] if shape else 1
        if not 0 <= begin <= end <= self._size - self._zero or end - begin != extent * row:
            raise ValueError(f"bytes {begin} to {end} for the shape {shape}")
        first, last = (box[0].start, box[0].stop) if box else (0, extent)
        if last > extent:
            raise ValueError(f"{extent} rows and no more")
        data = bytearray(self._range(self._zero + begin + first * row, self._zero + begin + last * row))
        rows_shape = [last - first, *shape[1:]] if shape else []
        rows = torch.frombuffer(data, dtype=dtype).view(rows_shape) if data else torch.empty(rows_shape, dtype=dtype)
        return rows[(slice(None), *box[1:])].contiguous() if box else rows

    def _range(self, start: int, stop: int) -> bytes:
        if stop > self._size:
            raise ValueError(f"it ends at byte {self._size}, before {stop}")
        self._file.seek(start)
        return self._file.read(stop - start)


def _is_shape(told: Any) -> bool:
    """Of a tensor of torch, whose strides are as long as if no dimension were empty."""
    if not isinstance(told, list) or not all(type(extent) is int and extent >= 0 for extent in told):
        return False
    return prod(max(extent, 1) for extent in told) <= torch.iinfo(torch.int64).max


def _header(tensors: list[tuple[str, torch.Tensor]]) -> bytes:
    entries: dict[str, object] = {}
    end = 0
    for name, tensor in tensors:
        start, end = end, end + tensor.nbytes
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
