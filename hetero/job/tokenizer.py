"""Which tokenizer makes a job's text into tokens."""

from __future__ import annotations

from hetero.data.documents.making import check_room
from hetero.data.options import BYTES, MODEL, DataOptions
from hetero.data.tokenizing.loading import load_tokenizer
from hetero.errors import explains_itself
from hetero.huggingface.errors import HfError
from hetero.huggingface.folder import TOKENIZER
from hetero.huggingface.hub import place
from hetero.job.errors import JobError
from hetero.models.options import ModelOptions


def with_default(data: DataOptions, model: ModelOptions) -> DataOptions:
    """The data, which are read by the tokenizer of the model's directory where that has one and they name none."""
    if "tokenizer" in data.model_fields_set or data.is_tokenized or not _has_tokenizer(model):
        return data
    return data.model_copy(update={"tokenizer": MODEL})


def with_directory(data: DataOptions, model: ModelOptions) -> DataOptions:
    """The data, with the directory of the model's tokenizer where it asks for that. Raises JobError where the model has
    none, HfError where it is not there."""
    if data.tokenizer != MODEL:
        return data
    if model.hf is None:
        rule = "is the tokenizer of the model's directory, and the model has none"
        raise JobError("data.tokenizer", MODEL, rule, f"name a directory with a tokenizer.json, or use {BYTES}")
    return data.model_copy(update={"tokenizer": str(place(model.hf))})


def tokenizer_notes(data: DataOptions, model: ModelOptions) -> list[str]:
    """In words, what a person may not have meant, and why a run that read its text here would be refused."""
    if data.is_tokenized:
        return []
    if data.tokenizer != BYTES:
        return _misfits(data, model)
    if model.weights is None:
        return []
    remedy = f"data.tokenizer: {MODEL} takes the model's own" if _has_tokenizer(model) else f"it has no {TOKENIZER}"
    return [f"the weights of {model.hf} begin on raw bytes, which are not the tokens that they have learnt; {remedy}"]


def _misfits(data: DataOptions, model: ModelOptions) -> list[str]:
    try:
        tokenizer = load_tokenizer(with_directory(data, model).tokenizer)
        check_room(tokenizer, data.tokenizer, model.resolve().vocab)
        return []
    except Exception as error:
        if not explains_itself(error):
            raise
        return [f"the text cannot be read here as it is to be: {error}"]


def _has_tokenizer(model: ModelOptions) -> bool:
    """Of a directory that is not there the check of the model tells."""
    try:
        return model.hf is not None and (place(model.hf) / TOKENIZER).is_file()
    except HfError:
        return False
