"""The tokenizer of a model's directory: tokenizer.json, its configuration, its chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from hetero.data.errors import DataError
from hetero.data.tokenizing.chat_template import ChatTemplate
from hetero.data.tokenizing.tokenizer import Encoded, Passage

KEY = "data.tokenizer"
TOKENIZER, CONFIG, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
FILES = (TOKENIZER, CONFIG, SPECIAL, TEMPLATE)
"""What it is read from; all but the first may be missing."""


class DirectoryTokenizer:
    """By the package `tokenizers`, which works on all cores. Whether a text gets a begin mark is said by tokenizer.json
    alone, as for transformers 5. Raises DataError for a directory that has none."""

    def __init__(self, folder: Path) -> None:
        files = {name: _read(folder / name) for name in FILES}
        self._tokenizer = _load(folder, files[TOKENIZER])
        config = _json(folder / SPECIAL, files[SPECIAL]) | _json(folder / CONFIG, files[CONFIG])
        named = {name: _content(token) for name, token in config.items() if name.endswith("_token")}
        marks = {name: mark for name, mark in named.items() if mark}
        self._end: int | None = self._tokenizer.token_to_id(marks["eos_token"]) if "eos_token" in marks else None
        text = _template(config, files[TEMPLATE])
        self.template = ChatTemplate(text, marks) if text else None
        self.vocab = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        digest = xxhash.xxh3_128()
        for name, data in files.items():
            digest.update(f"{name}:{len(data or b'')}:".encode() + (data or b""))
        self.fingerprint = digest.hexdigest()

    def encode(self, passages: Sequence[Passage]) -> list[Encoded]:
        """All written out alike, as those of one source are."""
        adds = not (passages and passages[0].written_out)
        texts = [passage.text for passage in passages]
        if any(passage.answers is not None for passage in passages):
            found = self._tokenizer.encode_batch(texts, add_special_tokens=adds)
        else:
            found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=adds)  # it finds no offsets
        return [self._encoded(passage, one) for passage, one in zip(passages, found, strict=True)]

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False)

    def _encoded(self, passage: Passage, found: Any) -> Encoded:
        tokens = np.array(found.ids, np.uint32)
        end = None if passage.written_out else self._end
        if end is not None and (not len(tokens) or tokens[-1] != end):
            tokens = np.append(tokens, np.uint32(end))
        if passage.answers is None:
            return Encoded(tokens)
        learnt = np.zeros(len(tokens), bool)
        for start, stop in passage.answers:
            learnt[_tokens_of(found, start, stop)] = True
        if end is not None:
            learnt[-1] = bool(passage.answers) and passage.answers[-1][1] == len(passage.text)
        return Encoded(tokens, learnt)


def _tokens_of(found: Any, start: int, stop: int) -> slice:
    """The tokens that have a letter of text[start:stop]; asked one by one, for all offsets take long to hand over."""
    first = next((token for at in range(start, stop) if (token := found.char_to_token(at)) is not None), None)
    if first is None:
        return slice(0, 0)
    last = next(token for at in range(stop - 1, start - 1, -1) if (token := found.char_to_token(at)) is not None)
    while last + 1 < len(found) and (letters := found.token_to_chars(last + 1)) and letters[0] < stop <= letters[1]:
        last += 1  # of a letter in several tokens it tells the first
    return slice(first, last + 1)


def _load(folder: Path, data: bytes | None) -> Any:
    if data is None:
        rule = f"has no {TOKENIZER}"
        remedy = "name a model's directory, or save its tokenizer with transformers' save_pretrained"
        raise DataError(KEY, str(folder), rule if folder.is_dir() else "there is no such directory", remedy)
    try:
        package = import_module("tokenizers")
    except ImportError:
        remedy = "pip install tokenizers where the command runs, or all of them with pip install hetero[hf]"
        raise DataError(KEY, str(folder), "is read by tokenizers, which is not installed", remedy) from None
    try:
        tokenizer = package.Tokenizer.from_buffer(data)
    except Exception as error:  # the package has no other
        rule = f"its {TOKENIZER} cannot be read ({error})"
        raise DataError(KEY, str(folder), rule, "copy it again, or update the package tokenizers") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(KEY, str(path), f"cannot be read ({error.strerror})", "make it readable") from None


def _json(path: Path, data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except ValueError as error:
        raise DataError(KEY, str(path), f"is no JSON ({error})", "copy it again") from None
    return found if isinstance(found, dict) else {}


def _content(token: Any) -> str | None:
    """Of a special token, which is a text or has one."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _template(config: Mapping[str, Any], file: bytes | None) -> str | None:
    if file is not None:
        return file.decode("utf-8", "replace")
    said = config.get("chat_template")
    if isinstance(said, list):
        named = {one.get("name"): one.get("template") for one in said if isinstance(one, dict)}
        said = named.get("default")
    return said if isinstance(said, str) else None
