"""The safetensors format, as a stream: written in one pass with its checksum, read by byte ranges from any file.

The format's own library writes to a path alone, and its checksum would be a second pass over the bytes.
"""

from __future__ import annotations

import json
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
        self._file = file
        length = int.from_bytes(self._range(0, 8), "little")
        if not 0 < length <= MOST_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes")
        self._entries: dict[str, Any] = json.loads(self._range(8, 8 + length))
        self._zero = 8 + length

    def read(self, name: str, box: tuple[slice, ...]) -> torch.Tensor:
        """A box of a tensor, by whole rows of its first dimension; all of the tensor without one."""
        entry = self._entries[name]
        dtype, shape = _TYPES[entry["dtype"]], entry["shape"]
        row = dtype.itemsize * prod(shape[1:])
        first, last = (box[0].start, box[0].stop) if box else (0, shape[0] if shape else 1)
        begin = self._zero + entry["data_offsets"][0]
        rows = torch.empty([last - first, *shape[1:]] if shape else [], dtype=dtype)
        if rows.numel():
            data = bytearray(self._range(begin + first * row, begin + last * row))
            rows = torch.frombuffer(data, dtype=dtype).view(rows.shape)
        return rows[(slice(None), *box[1:])].contiguous() if box else rows

    def _range(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        data = self._file.read(stop - start)
        if len(data) != stop - start:
            raise ValueError(f"it ends at byte {start + len(data)}, before {stop}")
        return data


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
