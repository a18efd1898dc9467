"""What a model's directory holds, by its configuration and the headers of its files. Torch-free."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import xxhash
from safetensors import SafetensorError, safe_open

from hetero.foreign import NotPlainData, check_bounded, open_plain, parse_json, read_plain
from hetero.huggingface.errors import KEY, HfError

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
BESIDE = (CONFIG, "generation_config.json", *TOKENIZER_FILES)
"""What belongs to a model beside its weights."""
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
MOST_CONFIG_BYTES, MOST_INDEX_BYTES = 4 << 20, 256 << 20
_COMPARED_BYTES = 16 << 20
_SAMPLES, _SAMPLE_BYTES = 64, 4096
"""Of each file, for its fingerprint: two trainings of one model have the same headers."""


@dataclass(frozen=True)
class HfTensor:
    """One tensor of a directory: `dtype` is torch's name of it."""

    file: str
    dtype: str
    shape: tuple[int, ...]


class HfFolder:
    """The directory `path`; `key` and `named` are what the user called it. Reads lazily, and raises HfError then."""

    def __init__(self, path: Path, named: str = "", key: str = KEY) -> None:
        self.path, self._key = path, key
        self._named = named or str(path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed config.json."""
        remedy = "name a folder that save_pretrained of transformers wrote"
        try:
            values = parse_json(read_plain(self.path / CONFIG, MOST_CONFIG_BYTES))
        except FileNotFoundError:
            raise self.error(f"{self.path} has no {CONFIG}", remedy) from None
        except (OSError, NotPlainData) as error:
            raise self.error(f"its {CONFIG} cannot be read ({error})", remedy) from None
        if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
            raise self.error(f"its {CONFIG} names no model_type", remedy)
        return values

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The names of its files of weights, sorted."""
        if (self.path / WEIGHTS).exists():
            return (WEIGHTS,)
        if (self.path / INDEX).exists():
            return tuple(sorted(set(self._index.values())))
        if pickled := sorted(path.name for path in self.path.glob("*.bin")):
            rule = f"its weights are pickled ({pickled[0]}), which may run code where they are read"
            remedy = "convert it where you trust it: load it with transformers, and save_pretrained to another folder"
            raise self.error(rule, remedy)
        raise self.error(f"{self.path} has no {WEIGHTS}, and no {INDEX}", "copy its weights there, as safetensors")

    @cached_property
    def tensors(self) -> dict[str, HfTensor]:
        """By name."""
        found: dict[str, HfTensor] = {}
        for file in self.files:
            for name, tensor in self._tensors(file):
                if name in found:
                    raise self.error(f"{name} lies in {found[name].file} and in {file}", "keep one of them")
                found[name] = tensor
        named = self._index if self.files != (WEIGHTS,) else {}
        if lost := sorted(name for name, file in named.items() if name not in found or found[name].file != file):
            rule = f"{INDEX} names {lost[0]} in {named[lost[0]]}, which has no such tensor"
            raise self.error(rule, "copy the whole folder again")
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Of the configuration, and of each file's name, size, header, and a sample of its bytes."""
        digest = xxhash.xxh3_64(json.dumps(self.config, sort_keys=True).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.file} {tensor.dtype} {tensor.shape}".encode())
        for file in self.files:
            with open_plain(self.path / file) as weights:
                size = os.fstat(weights.fileno()).st_size
                digest.update(f"{file} {size}".encode())
                for number in range(_SAMPLES):
                    weights.seek(max(0, size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                    digest.update(weights.read(_SAMPLE_BYTES))
        return digest.hexdigest()

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors have the same type, shape and bytes."""
        first, second = self.tensors[one], self.tensors[other]
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            return False
        parts = zip(self._bytes(one), self._bytes(other), strict=True)
        return all(part == counterpart for part, counterpart in parts)

    @property
    def beside(self) -> tuple[Path, ...]:
        """Its files that belong to the model beside the weights."""
        return tuple(path for name in BESIDE if (path := self.path / name).is_file())

    def error(self, rule: str, remedy: str) -> HfError:
        return HfError(self._key, self._named, rule, remedy)

    @cached_property
    def _index(self) -> dict[str, str]:
        try:
            values = json.loads(read_plain(self.path / INDEX, MOST_INDEX_BYTES))
            check_bounded(values, MOST_INDEX_BYTES)
            named = values["weight_map"]
            if not all(_is_plain(file) for file in named.values()):
                raise ValueError("weight_map names something else than files beside it")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self.error(f"its {INDEX} cannot be read ({error})", "copy the whole folder again") from None
        return dict(named)

    def _bytes(self, name: str) -> Iterator[bytes]:
        with open_plain(self.path / self.tensors[name].file) as file:
            size = int.from_bytes(file.read(8), "little")
            start, stop = json.loads(file.read(size))[name]["data_offsets"]
            file.seek(8 + size + start)
            for left in range(stop - start, 0, -_COMPARED_BYTES):
                yield file.read(min(left, _COMPARED_BYTES))

    def _tensors(self, file: str) -> Iterator[tuple[str, HfTensor]]:
        path = self.path / file
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise self.error(f"{file} is not a plain file", "copy the whole folder again")
            with safe_open(path, framework="np") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    part = opened.get_slice(name)
                    yield name, self._tensor(file, name, part.get_dtype(), tuple(part.get_shape()))
        except FileNotFoundError:
            raise self.error(f"{file}, which {INDEX} names, is missing", "copy the whole folder again") from None
        except (OSError, SafetensorError) as error:
            raise self.error(f"{file} is no whole safetensors file ({error})", "copy it again") from None

    def _tensor(self, file: str, name: str, dtype: str, shape: tuple[int, ...]) -> HfTensor:
        if dtype not in DTYPES:
            rule = f"{name} of {file} is {dtype}, and weights are read as {', '.join(DTYPES.values())}"
            raise self.error(rule, "save the model in one of these; quantized ones cannot be trained")
        return HfTensor(file, DTYPES[dtype], shape)


def _is_plain(file: Any) -> bool:
    return isinstance(file, str) and os.path.basename(file) == file and file not in ("", ".", "..")
