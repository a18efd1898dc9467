"""What makes a checkpoint's folder a model's directory, beside the weights that its owners write. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xxhash

from hetero.checkpoint.durable import write_durably
from hetero.checkpoint.hf_layout import HfLayout
from hetero.words.piece import StoredFile


class HfDirectory:
    """The files of `layout`, and `beside` them those of a run's tokenizer and the like."""

    def __init__(self, layout: HfLayout, beside: Sequence[Path] = ()) -> None:
        self._layout, self._beside = layout, beside

    def write(self, folder: Path) -> tuple[StoredFile, ...]:
        """All but the weights; what the directory consists of, weights included."""
        files = {path.name: path.read_bytes() for path in self._beside} | self._layout.files
        for name, data in files.items():
            write_durably(folder / name, data)
        small = [
            StoredFile(file=name, size_bytes=len(data), checksum=xxhash.xxh3_64(data).hexdigest())
            for name, data in files.items()
        ]
        return (*small, *(StoredFile(file=one.file, size_bytes=one.size_bytes) for one in self._layout.shards))
