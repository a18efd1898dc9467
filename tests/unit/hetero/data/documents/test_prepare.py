"""From sources to samples that are kept, and what is said of sources that cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc
import pytest
import torch

from hetero.data.batches import micro_batch
from hetero.data.documents import making
from hetero.data.documents import prepare as preparing
from hetero.data.documents.writer import DocumentWriter
from hetero.data.errors import DataError, RecordError
from hetero.data.options import DataOptions
from hetero.data.prepared import Prepared
from hetero.data.source import prepare
from hetero.data.stream import TextSample
from hetero.data.text import orders, text_stream
from hetero.data.tokenizing.loading import load_tokenizer
from hetero.job.tokenizer import tokenizer_notes
from hetero.models.options import ModelOptions
from tests.unit.hetero.data.made_tokenizer import CHAT, made_tokenizer

SEQ_LEN = 64


def _chat(*contents: str) -> dict[str, Any]:
    roles = ("user", "assistant")[: len(contents)]
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]}


CHATS = [_chat(f"what is {n}?", f"{n} fox" * (n % 3 + 1)) for n in range(30)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hetero" / "data"


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return made_tokenizer(tmp_path / "tokenizer")


def _lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _prepare(tmp_path: Path, source: Any, tokenizer: Path | str, **options: Any) -> Prepared:
    said = {"seq_len": SEQ_LEN, **options}
    source = str(source) if isinstance(source, Path) else source
    return prepare(DataOptions(source=source, tokenizer=str(tokenizer), **said), tmp_path / "made", room=300)


def _samples(text: Prepared, seq_len: int = SEQ_LEN) -> list[TextSample]:
    stream = text_stream(text.told(seq_len))
    return [stream.sequence(index) for index in range(len(stream))]


def _pieces(sample: TextSample) -> Iterator[tuple[list[int], list[int]]]:
    assert sample.documents is not None
    for number in np.unique(sample.documents):
        here = sample.documents == number
        if (sample.labels[here] != -100).any():
            yield sample.tokens[here].tolist(), sample.labels[here].tolist()


def test_a_chat_is_learnt_where_the_assistant_speaks(tmp_path: Path, tokenizer: Path) -> None:
    text = _prepare(tmp_path, _lines(tmp_path / "chat.jsonl", CHATS), tokenizer, loss="answers")
    said = load_tokenizer(str(tokenizer))
    found = []
    for sample in _samples(text):
        for tokens, labels in _pieces(sample):
            shifted = [label for label in labels if label != -100]
            assert all(label in (-100, after) for label, after in zip(labels, tokens[1:], strict=False))
            found.append((said.decode(tokens), said.decode(shifted)))
    assert said.template is not None
    wanted = [
        (said.template.render(one["messages"]).removesuffix("\n"), one["messages"][1]["content"] + "<|im_end|>")
        for one in CHATS
    ]
    assert sorted((whole.removesuffix("\n"), answer) for whole, answer in found) == sorted(wanted)


def test_positions_and_documents_of_a_packed_sample(tmp_path: Path, tokenizer: Path) -> None:
    text = _prepare(tmp_path, _lines(tmp_path / "chat.jsonl", CHATS), tokenizer)
    assert sum(text.samples) < len(CHATS)
    for sample in _samples(text):
        assert sample.documents is not None
        assert sample.positions is not None
        begins = np.flatnonzero(np.diff(sample.documents, prepend=-1))
        assert sample.positions[begins].tolist() == [0] * len(begins)
        assert (np.diff(sample.positions)[np.diff(sample.documents) == 0] == 1).all()


@pytest.mark.parametrize("pack", [True, False])
def test_a_micro_batch_says_where_documents_end_if_samples_have_several(
    tmp_path: Path, tokenizer: Path, pack: bool
) -> None:
    text = _prepare(tmp_path, _lines(tmp_path / "chat.jsonl", CHATS), tokenizer, loss="answers", pack=pack)
    run = text.told(SEQ_LEN)
    assert run.packs == pack
    stream = text_stream(run)
    training, _ = orders(run, stream, 7, 0)
    whole = micro_batch(stream, training, 2, 5)
    wanted = [stream.sequence(training.index(position)) for position in range(2, 7)]
    assert whole.labels_BT.tolist() == [sample.labels.tolist() for sample in wanted]
    assert int(whole.counted) == sum((sample.labels != -100).sum() for sample in wanted)
    assert (whole.documents_BT is None, whole.positions_BT is None) == (not pack, not pack)
    parts = [micro_batch(stream, training, first, count) for first, count in ((2, 1), (3, 4))]
    assert torch.equal(torch.cat([part.tokens_BT for part in parts]), whole.tokens_BT)
    if whole.documents_BT is not None:
        assert whole.documents_BT.tolist() == [sample.documents.tolist() for sample in wanted]  # type: ignore[union-attr]


def test_unpacked_samples_are_a_document_each(tmp_path: Path, tokenizer: Path) -> None:
    text = _prepare(tmp_path, _lines(tmp_path / "chat.jsonl", CHATS), tokenizer, pack=False)
    assert text.samples == (len(CHATS),)
    assert not text_stream(text.told(SEQ_LEN)).packs


@pytest.mark.parametrize("pack", [True, False])
def test_texts_lose_nothing(tmp_path: Path, pack: bool) -> None:
    """Every byte but the first of each document is some sample's label once."""
    rows = [{"text": "x" * 7}, {"text": ""}, {"text": "abc" * 100}, {"text": "grüße"}]
    text = _prepare(tmp_path, _lines(tmp_path / "a.jsonl", rows), "bytes", pack=pack)
    labels = np.concatenate([sample.labels for sample in _samples(text)])
    wanted = [byte for row in rows for byte in [*row["text"].encode()[1:], *([256] if row["text"] else [])]]
    assert labels[labels != -100].tolist() == wanted
    assert text.note == "1 documents without a token to learn were left out"


def test_prompts_are_not_learnt_and_completions_end(tmp_path: Path, tokenizer: Path) -> None:
    rows = [{"q": "what is two? ", "a": "four", "other": 1}]
    source = _lines(tmp_path / "a.jsonl", rows)
    text = _prepare(tmp_path, source, tokenizer, fields={"prompt": "q", "completion": "a"}, loss="answers")
    ((tokens, labels),) = _pieces(_samples(text)[0])
    said = load_tokenizer(str(tokenizer))
    assert said.decode([label for label in labels if label != -100]).strip() == "four<|im_end|>"
    assert said.decode(tokens).startswith("what is two?")


@pytest.mark.parametrize("fields", [None, {"tokens": "input_ids", "labels": "labels"}])
def test_tokens_that_were_made_before_are_learnt_where_their_labels_are(tmp_path: Path, fields: Any) -> None:
    """Whatever the tokenizer has for them: the model alone must."""
    rows = [{"input_ids": [7, 8, 299], "labels": [-100, 8, -100]}, {"input_ids": [5, 6], "labels": [5, 6]}]
    source = _lines(tmp_path / "a.jsonl", rows)
    found = [_pieces(one) for one in _samples(_prepare(tmp_path, source, "bytes", fields=fields, loss="answers"))]
    wanted = [([5], [6]), ([7, 8], [8, -100])]
    assert sorted((tokens, labels) for pieces in found for tokens, labels in pieces) == wanted
    (whole,) = _samples(_prepare(tmp_path, source, "bytes"), SEQ_LEN)
    assert sorted(whole.labels[whole.labels != -100]) == [6, 8, 299]


def test_where_records_have_tokens_no_tokenizer_is_asked(tmp_path: Path) -> None:
    source, fields = _lines(tmp_path / "a.jsonl", [{"input_ids": [7, 8, 9]}]), {"tokens": "input_ids"}
    nowhere = tmp_path / "none"
    options = DataOptions.model_validate(
        {"source": str(source), "fields": fields, "tokenizer": str(nowhere), "seq_len": SEQ_LEN}
    )
    ((tokens, _),) = _pieces(_samples(prepare(options, tmp_path / "run" / "data", room=16))[0])
    assert (tokens, options.vocab) == ([7, 8], None)
    bytes_of_weights = options.model_copy(update={"tokenizer": "bytes"})
    model = ModelOptions.model_validate({"hf": str(nowhere)})
    assert tokenizer_notes(options, model) == tokenizer_notes(bytes_of_weights, model) == []


# What is kept


def test_documents_are_made_once_whatever_the_samples(
    tmp_path: Path, tokenizer: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _lines(tmp_path / "chat.jsonl", CHATS)
    first = _prepare(tmp_path, source, tokenizer)
    monkeypatch.setattr(making.Making, "run", None)
    assert _prepare(tmp_path, source, tokenizer) == first
    assert _prepare(tmp_path, source.rename(tmp_path / "other.jsonl"), tokenizer) == first
    longer = _prepare(tmp_path, tmp_path / "other.jsonl", tokenizer, seq_len=128)
    assert longer.fingerprint != first.fingerprint
    assert [path.stat().st_mode & 0o077 for path in cache.rglob("*.bin")] == [0] * 4
    with pytest.raises(TypeError):
        _prepare(tmp_path, tmp_path / "other.jsonl", tokenizer, loss="answers")
    with monkeypatch.context() as release:
        release.setattr(preparing, "VERSION", making.VERSION + 1)
        with pytest.raises(TypeError):
            _prepare(tmp_path, tmp_path / "other.jsonl", tokenizer)
    made_tokenizer(tokenizer, CHAT.replace("user", "human"))
    (tokenizer / "chat_template.jinja").write_text(CHAT + " ")
    with pytest.raises(TypeError):
        _prepare(tmp_path, tmp_path / "other.jsonl", tokenizer)


@pytest.mark.parametrize("broken_at", [*(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 8)), 8])
def test_what_was_broken_off_goes_on_to_the_same(
    tmp_path: Path, tokenizer: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    folder = tmp_path / "chats"
    folder.mkdir()
    for number in range(3):
        _lines(folder / f"{number}.jsonl", CHATS[number * 10 : number * 10 + 10])
    monkeypatch.setattr(making, "BATCH", 4)
    monkeypatch.setattr(making, "KEEP_EVERY", 2)
    whole = _prepare(tmp_path, folder, tokenizer, loss="answers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "again"))
    add, calls = DocumentWriter.add, []

    def breaking(writer: DocumentWriter, *read: Any) -> None:
        calls.append(read)
        add(writer, *read)
        if len(calls) == broken_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(DocumentWriter, "add", breaking)
    with pytest.raises(KeyboardInterrupt):
        _prepare(tmp_path, folder, tokenizer, loss="answers")
    again = _prepare(tmp_path, folder, tokenizer, loss="answers")
    assert again.fingerprint == whole.fingerprint
    assert len(calls) - broken_at == 9 - (broken_at - 1) // 2 * 2, "what was kept is not made again"


def test_without_a_cache_the_run_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/1")
    text = _prepare(tmp_path, _lines(tmp_path / "a.jsonl", [{"text": "abc"}]), "bytes")
    assert (tmp_path / "made") in text.path.parents


# Several sources


def test_sources_are_mixed_by_weight(tmp_path: Path) -> None:
    for name in "ab":
        _lines(tmp_path / f"{name}.jsonl", [{"text": name * 9}] * 4)
    (tmp_path / "c.txt").write_text("c" * 9)
    listed = [{"source": str(tmp_path / "[ab].jsonl"), "weight": 3}, {"source": str(tmp_path / "c.txt")}]
    text = _prepare(tmp_path, listed, "bytes", seq_len=9, pack=False)
    assert (text.samples, text.weights) == ((8, 1), (3.0, 1.0))
    assert [sample.tokens[0] for sample in _samples(text, 9)] == [*[97] * 4, *[98] * 4, 99]


def test_a_data_set_that_was_saved_to_disk(tmp_path: Path) -> None:
    """Its shards in the order of its state, without the caches that lie there too."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("b", "a", "cache"):
        table = pyarrow.Table.from_pylist([{"text": name}])
        with pyarrow.ipc.new_stream(folder / f"{name}.arrow", table.schema) as file:
            file.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "b.arrow"}, {"filename": "a.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    samples = _samples(_prepare(tmp_path, folder, "bytes", pack=False, seq_len=1), 1)
    assert [sample.tokens[0] for sample in samples] == [ord("b"), ord("a")]
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(DataError, match=f"name one of them: {folder}/train"):
        _prepare(tmp_path, folder, "bytes", pack=False)


def test_a_folder_of_all_kinds_is_text_as_ever(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    _lines(tmp_path / "source" / "a.jsonl", [{"text": "abc"}])
    (tmp_path / "source" / "b.py").write_text("pass")
    assert _prepare(tmp_path, tmp_path / "source", "bytes", seq_len=4).parts == ()


# What is wrong with a source


@pytest.mark.parametrize(
    ("row", "options", "key", "rule"),
    [
        ({"txt": "a", "n": 1}, {}, "data.fields", "its fields are 'txt', 'n'"),
        ({"text": 5}, {}, "data.fields", "is int, not text"),
        ({"text": None}, {}, "data.fields", "has no field 'text'"),
        (_chat("hm?", " "), {"loss": "answers"}, "data.fields", "message 2 is an empty answer"),
        (_chat("hm?"), {"loss": "answers"}, "data.loss", "has no answer"),
        ({"messages": "hm?"}, {}, "data.fields", "must be a list of messages"),
        (
            {"messages": [{"from": "a", "value": "b"}]},
            {},
            "data.fields",
            "has no 'role'; its fields are 'from', 'value'",
        ),
        ({"prompt": "a", "completion": ""}, {"loss": "answers"}, "data.fields", "is empty"),
        ({"input_ids": [1, 2.5]}, {}, "data.fields", "must be a list of whole numbers"),
        ({"input_ids": [[1, 2], [3]]}, {}, "data.fields", "must be a list of whole numbers"),
        ({"input_ids": [1, 300]}, {}, "data.source", "300 entries for tokens"),
        ({"input_ids": [5, -1]}, {}, "data.source", "'token -1': the model has 300 entries"),
        ({"input_ids": [1, 2], "labels": [2]}, {"loss": "answers"}, "data.fields", "1 labels for 2 tokens"),
        ({"input_ids": [1, 2], "labels": [2, 2]}, {"loss": "answers"}, "data.fields", "label 0 is 2, and its token 1"),
        ({"input_ids": [1, 2], "labels": [1, -100]}, {"loss": "answers"}, "data.loss", "no token to learn"),
    ],
)
def test_a_record_that_cannot_be_learnt_is_named(
    tmp_path: Path, tokenizer: Path, row: dict[str, Any], options: dict[str, Any], key: str, rule: str
) -> None:
    good: dict[str, Any] = {"text": "abc"}
    if "messages" in row:
        good = CHATS[0]
    if "prompt" in row:
        good = {"prompt": "a", "completion": "b"}
    if "input_ids" in row:
        good = {"input_ids": [1, 2], "labels": [1, 2]} if "labels" in row else {"input_ids": [1, 2]}
    source = _lines(tmp_path / "a.jsonl", [good, row])
    with pytest.raises(RecordError, match=rule) as raised:
        _prepare(tmp_path, source, tokenizer, **options)
    assert (raised.value.key, raised.value.file, raised.value.line) == (key, str(source), 2)


def test_what_does_not_go_together(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    with pytest.raises(DataError, match="text, which has neither fields nor answers"):
        _prepare(tmp_path, tmp_path / "a.txt", tokenizer, loss="answers")
    chats = _lines(tmp_path / "chat.jsonl", CHATS)
    with pytest.raises(RecordError, match="its tokenizer has no chat template"):
        _prepare(tmp_path, chats, "bytes")
    unlike = made_tokenizer(tmp_path / "other", "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}")
    with pytest.raises(RecordError, match=r"has no \{% generation %\}"):
        _prepare(tmp_path, chats, unlike, loss="answers")
    with pytest.raises(DataError, match="has 300 symbols, and the model's embedding has room for 299"):
        prepare(DataOptions(source=str(chats), tokenizer=str(tokenizer), seq_len=9), tmp_path / "made", room=299)


def test_text_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo \xff\n")
    with pytest.raises(RecordError, match="is not UTF-8") as raised:
        _prepare(tmp_path, tmp_path / "a.txt", tokenizer)
    assert raised.value.line == 2


def test_a_source_that_changes_meanwhile_is_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _lines(tmp_path / "a.jsonl", [{"text": "abc"}])
    add = DocumentWriter.add

    def changing(writer: DocumentWriter, *read: Any) -> None:
        source.write_text('{"text": "changed"}')
        add(writer, *read)

    monkeypatch.setattr(DocumentWriter, "add", changing)
    with pytest.raises(DataError, match="has changed while it was read"):
        _prepare(tmp_path, source, "bytes")
    assert not list(cache.rglob("facts.json"))
