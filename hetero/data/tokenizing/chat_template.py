"""A model's own chat template, rendered as transformers does, and where in it the answers stand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

Message = Mapping[str, Any]
ASSISTANT = "assistant"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_THOUGHT = ("reasoning_content", "thinking", "reasoning")
_BEGIN, _END = "\ue0f0", "\ue0f1"
"""Around an answer while a chat is rendered. Letters of private use, which a chat must not have."""


class TemplateFault(Exception):
    """Why a chat cannot be written down, or its answers not be found, in words."""


class ChatTemplate:
    """Only data goes into a template, and it can neither read nor change anything else. `strftime_now` is not there: a
    sample must not depend on the day, and templates that ask for the date have one for who does not tell it."""

    def __init__(self, text: str, marks: Mapping[str, str]) -> None:
        self._text, self._marks = text, dict(marks)
        self._marks_answers = _GENERATION.search(text) is not None

    def render(self, messages: Sequence[Message], *, then_answer: bool = False) -> str:
        """The chat as the model sees it; `then_answer` adds what comes before an answer. Raises TemplateFault."""
        text = self._render(messages, then_answer)
        return _unmarked(text) if self._marks_answers else text

    def answers(self, messages: Sequence[Message]) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The rendered chat, and the stretches [start, stop) of it that the assistant says. Raises TemplateFault where
        the template neither marks them nor lets them be found."""
        if self._marks_answers:
            return _stretches(self._render(messages, False))
        return self.render(messages), tuple(self._by_prefixes(messages))

    def _by_prefixes(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Each is what comes to the rendered chat with its message."""
        whole, found = self.render(messages), []
        for number, message in enumerate(messages):
            if message.get("role") != ASSISTANT:
                continue
            before = self.render(messages[:number], then_answer=True) if number else ""
            until = self.render(messages[: number + 1]) if number + 1 < len(messages) else whole
            if not (until.startswith(before) and whole.startswith(until)):
                raise TemplateFault(
                    "the model's chat template has no {% generation %} that marks answers, and they cannot be found "
                    f"without: up to message {number + 1} it writes something else than the beginning of the whole chat"
                )
            if not self._writes(messages[: number + 1], until[len(before) :]):
                raise TemplateFault(
                    f"the model's chat template does not write down what the assistant says in message {number + 1}"
                )
            found.append((len(before), self._end_of(until, len(before))))
        return found

    def _writes(self, messages: Sequence[Message], written: str) -> bool:
        """Whether the last message's words are in what comes with it, or at least change it: templates may cut them."""
        said = messages[-1].get("content")
        if not isinstance(said, str) or said.strip() in written:
            return True
        return not self.render([*messages[:-1], {**messages[-1], "content": ""}]).endswith(written)

    def _end_of(self, text: str, start: int) -> int:
        """An answer ends with the end mark that the template puts behind it, if it does."""
        mark = self._marks.get("eos_token")
        at = text.rfind(mark, start) if mark else -1
        return len(text) if at < 0 or not mark else at + len(mark)

    def _render(self, messages: Sequence[Message], then_answer: bool) -> str:
        plain = [_message(message) for message in messages]
        if self._marks_answers and any(letter in str(plain) for letter in (_BEGIN, _END)):
            raise TemplateFault("a message has letters of private use that mark answers here")
        try:
            return self._template.render(
                messages=plain, tools=None, documents=None, add_generation_prompt=then_answer, **self._marks
            )
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise TemplateFault(f"the model's chat template refuses it: {error}") from None

    @cached_property
    def _template(self) -> Any:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "namespace": _KeptNames, "dict": _dict}
        return environment.from_string(self._text)


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}`."""

    tags = {"generation"}  # noqa: RUF012 (the base class says so)

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Macro) -> str:
        return f"{_BEGIN}{caller()}{_END}"


class _KeptNames(Namespace):
    """What a template may keep; no names of Python's own, by which it could reach out of its sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        names = dict(*args[1:], **kwargs)
        for name in names:
            _check_name(name)
        Namespace.__init__(args[0], names)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a template may not keep {name!r}")


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """No class, which has more to it than making one."""
    return dict(*args, **kwargs)


def _message(message: Message) -> dict[str, Any]:
    """As transformers hands it to a template: without what is null, and with what was thought under each of its names
    that templates read."""
    plain = {key: value for key, value in message.items() if value is not None}
    thought = next((plain[name] for name in _THOUGHT if name in plain), None)
    return plain if thought is None else {"thinking": thought, **plain, "reasoning_content": thought}


def _stretches(marked: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text without its marks, and what stood between them."""
    found, start, at = [], 0, 0
    for letter in marked:
        if letter == _BEGIN:
            start = at
        elif letter == _END:
            found.append((start, at))
        else:
            at += 1
    return _unmarked(marked), tuple(found)


def _unmarked(text: str) -> str:
    return text.replace(_BEGIN, "").replace(_END, "")


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
             sort_keys: bool = False) -> str:  # fmt: skip
    """As transformers has it: not escaped for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)
