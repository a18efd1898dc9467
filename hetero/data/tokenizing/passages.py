"""What of a record is learnt, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hetero.data.records.record import DataRecord
from hetero.data.tokenizing.chat_template import ASSISTANT, ChatTemplate, TemplateFault
from hetero.data.tokenizing.tokenizer import Passage

_FIELDS, _LOSS = "data.fields", "data.loss"
KINDS: tuple[dict[str, str], ...] = (
    {"messages": "messages"},
    {"prompt": "prompt", "completion": "completion"},
    {"text": "text"},
    {"tokens": "input_ids", "labels": "labels"},
    {"tokens": "input_ids"},
)
"""Which fields go together, and their usual names; the first kind that a record has is taken where the job file names
none."""


class Passages:
    """Of the records of one source. `fields` are their names by what they are; `template` is the model's.

    Answers are kept apart only where `answers` asks for them."""

    def __init__(self, fields: Mapping[str, str], template: ChatTemplate | None, *, answers: bool) -> None:
        self._fields, self._template, self._answers = fields, template, answers

    def of(self, record: DataRecord) -> Passage:
        """Raises RecordError, with the record's place, for one that has no such fields, or nothing to learn."""
        if record.text is not None:
            return Passage(_utf8(record))
        if "messages" in self._fields:
            return self._chat(record)
        if "prompt" in self._fields:
            return self._completed(record)
        return Passage(record.string(self._fields["text"]))

    def _completed(self, record: DataRecord) -> Passage:
        prompt, completion = (record.string(self._fields[name]) for name in ("prompt", "completion"))
        if not completion.strip():
            rule = "is empty, and nothing would be learnt from it"
            raise record.place.error(self._fields["completion"], rule, "remove the record, or write an answer", _FIELDS)
        text = prompt + completion
        return Passage(text, answers=((len(prompt), len(text)),) if self._answers else None)

    def _chat(self, record: DataRecord) -> Passage:
        messages = self._messages(record)
        if self._template is None:
            rule = "its tokenizer has no chat template"
            remedy = "name a model's directory that has one with data.tokenizer, or give texts"
            raise record.place.error(self._fields["messages"], rule, remedy, "data.tokenizer")
        try:
            if not self._answers:
                return Passage(self._template.render(messages), written_out=True)
            text, answers = self._template.answers(messages)
        except TemplateFault as fault:
            remedy = "correct the chat, take another model's tokenizer, or set data.loss to all"
            raise record.place.error(self._fields["messages"], str(fault), remedy, _LOSS) from None
        if not any(text[start:stop].strip() for start, stop in answers):
            rule = "has no answer that the model's chat template writes down"
            raise record.place.error(self._fields["messages"], rule, "remove it, or set data.loss to all", _LOSS)
        return Passage(text, written_out=True, answers=answers)

    def _messages(self, record: DataRecord) -> Sequence[Mapping[str, Any]]:
        name = self._fields["messages"]
        messages = record.field(name)
        if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages) or not messages:
            rule = "must be a list of messages, each with a role and content"
            raise record.place.error(name, rule, "name another field with data.fields", _FIELDS)
        for number, message in enumerate(messages, 1):
            if "role" not in message:
                there = ", ".join(map(repr, message)) or "none"
                rule = f"message {number} has no 'role'; its fields are {there}"
                raise record.place.error(name, rule, "write chats as lists of {role: .., content: ..}", _FIELDS)
            if self._answers and message["role"] == ASSISTANT and _is_empty(message):
                rule = f"message {number} is an empty answer"
                raise record.place.error(name, rule, "remove the record, or write an answer", _FIELDS)
        return messages


def _is_empty(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return not (content.strip() if isinstance(content, str) else content) and not message.get("tool_calls")


def fields_of(record: DataRecord) -> dict[str, str]:
    """What a record has of the usual names. Raises RecordError where that is nothing."""
    if record.text is not None or record.tokens is not None:
        return {}
    values = record.values or {}
    for kind in KINDS:
        if set(kind.values()) <= values.keys():
            return dict(kind)
    there = ", ".join(map(repr, values)) or "none"
    rule = f"has neither messages, nor prompt and completion, nor text, nor input_ids; its fields are {there}"
    raise record.place.error(None, rule, "say which is which with data.fields", _FIELDS)


def _utf8(record: DataRecord) -> str:
    assert record.text is not None
    try:
        return record.text.decode("utf-8")
    except UnicodeDecodeError as error:
        number = record.text.count(b"\n", 0, error.start) + 1
        place = type(record.place)(record.place.file, number)
        remedy = "write the file anew as UTF-8, or use tokenizer: bytes"
        raise place.error(str(place.file), f"is not UTF-8 ({error.reason})", remedy) from None
