"""Records whose tokens others have made, as a data set that was tokenized before has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hetero.data.document_stream import IGNORED
from hetero.data.records.record import DataRecord

_FIELDS, _LOSS = "data.fields", "data.loss"
Ints = npt.NDArray[np.int64]


def tokenized(record: DataRecord, fields: Mapping[str, str], *, answers: bool) -> DataRecord:
    """The record's tokens, and with `answers` which of them are learnt: those that its labels repeat.

    Raises RecordError, with the record's place, for one that has no list of tokens, labels that are not those of its
    tokens, or nothing to learn."""
    tokens = _numbers(record, fields["tokens"])
    if not answers:
        return replace(record, values=None, tokens=tokens)
    if "labels" not in fields:
        remedy = "name the labels with data.fields, or set data.loss to all"
        raise record.place.error(fields["tokens"], "no labels say which of them are answers", remedy, _LOSS)
    learnt = _learnt(record, fields["labels"], tokens)
    if not learnt[1:].any():
        rule = f"has no token to learn: all are {IGNORED}, but for the first, which nothing comes before"
        raise record.place.error(fields["labels"], rule, "remove the record, or set data.loss to all", _LOSS)
    return replace(record, values=None, tokens=tokens, learnt=learnt)


def _learnt(record: DataRecord, name: str, tokens: Ints) -> npt.NDArray[np.bool_]:
    labels = _numbers(record, name)
    if len(labels) != len(tokens):
        rule = f"has {len(labels)} labels for {len(tokens)} tokens"
        raise record.place.error(name, rule, "give a label for each token", _FIELDS)
    learnt = labels != IGNORED
    if (other := np.flatnonzero(learnt & (labels != tokens))).size:
        at = int(other[0])
        rule = f"label {at} is {labels[at]}, and its token {tokens[at]}: a label is that of its own place, or {IGNORED}"
        raise record.place.error(name, rule, "give labels that are not shifted, as transformers' models take", _FIELDS)
    return learnt


def _numbers(record: DataRecord, name: str) -> Ints:
    value: Any = record.field(name)
    found = np.asarray(value) if isinstance(value, list) and value else np.empty(0)
    if found.ndim != 1 or found.dtype.kind != "i":
        rule = "must be a list of whole numbers, one for each token"
        raise record.place.error(name, rule, "name another field with data.fields", _FIELDS)
    return found.astype(np.int64)
