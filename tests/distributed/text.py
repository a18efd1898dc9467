"""A text in which every shard of every vocabulary finds tokens."""

from __future__ import annotations

from pathlib import Path

from hetero.data.options import DataOptions
from hetero.data.source import Prepared, prepare
from tests.distributed.fleet import SEQ_LEN


def every_byte(folder: Path) -> Prepared:
    source = folder / "source.txt"
    source.write_bytes(bytes(i * i // 5 % 256 for i in range(20_000)))
    return prepare(DataOptions(source=str(source), seq_len=SEQ_LEN), folder)
