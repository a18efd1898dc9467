"""Documents packed into samples, few of whose tokens count, and in many samples none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hetero.data import batches
from hetero.data.options import DataOptions
from hetero.data.source import Prepared, prepare
from hetero.data.split import Samples
from hetero.data.text import TextStream
from hetero.layers.cross_entropy import IGNORED
from hetero.models.batch import Batch
from tests.distributed.fleet import SEQ_LEN


def answered_questions(folder: Path) -> Prepared:
    """Prompts and completions of 2 to 15 bytes, most of them several in a sample."""
    source = folder / "questions.jsonl"
    rows = ({"prompt": _letters(n, 1 + n * n % 7), "completion": _letters(3 * n, 1 + n % 8)} for n in range(900))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return prepare(DataOptions(source=str(source), loss="answers", seq_len=SEQ_LEN), folder)


def micro_batch(stream: TextStream, order: Samples, first_position: int, count: int) -> Batch:
    """`hetero.data.batches.micro_batch` which takes every second packed sample for text that is not learnt."""
    made = batches.micro_batch(stream, order, first_position, count)
    if stream.packs:
        made.labels_BT[made.tokens_BT.sum(-1) % 2 > 0] = IGNORED
    return made


def is_varied(batch: Batch) -> bool:
    """Whether borders, positions and counts are as uneven as a test of them needs."""
    assert batch.documents_BT is not None
    assert batch.positions_BT is not None
    counts = (batch.labels_BT != IGNORED).sum(-1)
    several = (batch.documents_BT.amax(-1) > batch.documents_BT.amin(-1)).any()
    return bool(several and (batch.positions_BT.amax() < SEQ_LEN) and len(torch.unique(counts)) > 1)


def _letters(seed: int, count: int) -> str:
    return "".join(chr(97 + (seed * seed + 7 * seed * place + place * place) % 26) for place in range(count))
