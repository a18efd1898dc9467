"""A model as the config.json of its Hugging Face directory tells it. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from hetero.models.errors import ModelError


class HfModel(BaseModel):
    """All that a rank needs to describe the model; where its weights lie is said elsewhere.

    `config` is the text of config.json in one form, so that equal models are equal: made by `of`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: str
    config: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> HfModel:
        """The model of a parsed config.json. ModelError where it names no `model_type`."""
        kind = values.get("model_type")
        if not isinstance(kind, str):
            raise config_error("model_type", kind, "names the architecture", "use a directory of a causal model")
        return cls(model_type=kind, config=json.dumps(values, sort_keys=True, separators=(",", ":")))

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The parsed config.json: read only."""
        return dict(json.loads(self.config))

    @property
    def vocab(self) -> int:
        """Token entries. ModelError where config.json does not say."""
        vocab = self.values.get("vocab_size")
        if not isinstance(vocab, int) or isinstance(vocab, bool) or vocab < 2:
            raise config_error("vocab_size", vocab, "must be a number of token entries", "give the embedding's rows")
        return vocab

    def with_vocab(self, vocab: int) -> HfModel:
        """The same model with another number of token entries."""
        return HfModel.of({**self.values, "vocab_size": vocab})


def config_error(name: str, value: Any, rule: str, remedy: str) -> ModelError:
    """Of a value in config.json."""
    return ModelError(f"model.hf: config.json: {name}", value, rule, remedy)
