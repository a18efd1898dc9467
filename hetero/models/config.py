"""config.json as a family reads it: each key once, and nothing ignored in silence. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from hetero.models.hf_model import HfModel, config_error

Value = TypeVar("Value")

_NO_MATTER = frozenset({
    "architectures", "auto_map", "bos_token_id", "cache_implementation", "chunk_size_feed_forward",
    "decoder_start_token_id", "dtype", "eos_token_id", "finetuning_task", "id2label", "is_decoder", "label2id",
    "max_position_embeddings", "model_type", "num_labels", "output_attentions", "output_hidden_states",
    "pad_token_id", "prefix", "problem_type", "return_dict", "sep_token_id", "task_specific_params",
    "tokenizer_class", "torch_dtype", "torchscript", "transformers_version", "use_cache",
})  # fmt: skip
"""Of labels, tokens, files and generation: none changes what the model computes of a sample."""


_LARGEST = 1 << 24
"""More than any has, and no more than can be counted up."""


class Config:
    """Each read names a key with the value that transformers takes where config.json has none. Raises ModelError."""

    def __init__(self, model: HfModel) -> None:
        self.model_type, self._values = model.model_type, model.values
        self._read: set[str] = set()

    def optional(self, key: str, default: Value) -> Any | Value:
        """As it stands there, null as None."""
        self._read.add(key)
        return self._values.get(key, default)

    def integer(self, key: str, default: int) -> int:
        """Positive; null is the default."""
        value = self._value(key, default)
        if type(value) is not int or value < 1:
            raise config_error(key, value, "must be a positive integer", "correct it")
        if value > _LARGEST:
            raise config_error(key, value, f"must be at most {_LARGEST:,}", "correct it")
        return value

    def number(self, key: str, default: float) -> float:
        """Null is the default."""
        value = self._value(key, default)
        if type(value) not in (int, float):
            raise config_error(key, value, "must be a number", "correct it")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Null is the default."""
        value = self._value(key, default)
        if type(value) is not bool:
            raise config_error(key, value, "must be true or false", "correct it")
        return value

    def choice(self, key: str, default: Value, known: Sequence[Value]) -> Value:
        """One of the known values, or it is refused."""
        value = self._value(key, default)
        if value not in known:
            names = ", ".join(str(one) for one in known)
            raise config_error(key, value, f"{self.model_type} is supported with {names} alone", "use another model")
        return value

    def only(self, key: str, value: Any) -> None:
        """What is there must be this, which is also transformers' default."""
        self.choice(key, value, (value,))

    def without_dropout(self, *keys: str) -> None:
        """Dropout is not supported: it must be 0 in training, too."""
        for key in keys:
            self.only(key, 0.0)

    def finish(self) -> None:
        """Refuses what nobody has read."""
        for key in ("is_encoder_decoder", "add_cross_attention"):
            self.only(key, False)
        for key in sorted(self._values.keys() - self._read - _NO_MATTER):
            if not key.startswith("_") and self._values[key] is not None:
                rule = f"is not known of {self.model_type}, and nothing is ignored"
                raise config_error(key, self._values[key], rule, "remove it if it changes nothing that is computed")

    def _value(self, key: str, default: Any) -> Any:
        value = self.optional(key, default)
        return default if value is None else value
