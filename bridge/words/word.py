"""A word between two processes, and how it becomes bytes: its name, a space, and its fields as JSON."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import CoreConfig, SchemaSerializer

from bridge.errors import WordError

_ONE_RELEASE = "both processes must be of one release; please report it if they are"
_words: dict[str, type[Word]] = {}


class WordPart:
    """A frozen dataclass within a word. What does not fit its fields' types exactly is refused, and so is what it does
    not know."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")


class Word(WordPart):
    """One message. Its subclasses are frozen dataclasses, known by their names."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        known = _words.setdefault(cls.__name__, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"{cls.__name__} is a word of {known.__module__} already")
        _words[cls.__name__] = cls


class Answer(Word):
    """What is said once an order has been carried out."""


A = TypeVar("A", bound=Answer)


class Order(Word, Generic[A]):
    """Something to do, and the answer to it: `class ProbeLink(Order[LinkProbed])`."""

    answer: ClassVar[type[Answer]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        (asked,) = get_args(cls.__orig_bases__[0])  # type: ignore[attr-defined]
        if isinstance(asked, type):
            cls.answer = asked


def encode(word: Word) -> bytes:
    """Fields must hold what their types say: whoever reads the word insists on it."""
    name = type(word).__name__
    return b"%s %s" % (name.encode(), _writer(name).to_json(word))


def decode(data: bytes) -> Word:
    """Raises WordError if that is no word, or one with other fields than ours."""
    head, _, fields = data.partition(b" ")
    name = head.decode(errors="replace")
    kind = _words.get(name, Word)
    if kind.__subclasses__() or "__dataclass_fields__" not in vars(kind):  # a kind of words is none itself
        raise WordError("word", name[:80], "it is not known here", _ONE_RELEASE)
    try:
        word: Word = _reader(name).validator.validate_json(fields, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, (name, *first["loc"])))
        raise WordError(where, _shown(first["input"]), first["msg"], _ONE_RELEASE) from None
    return word


def unexpected(word: Word, why: str = "nobody says that here") -> WordError:
    """A word that is known, and makes no sense here, as at the end of a `match`."""
    return WordError("word", type(word).__name__, why, _ONE_RELEASE)


def refused(word: Word, field: str, rule: str) -> WordError:
    """For a word that makes no sense here because of one of its fields."""
    return WordError(f"{type(word).__name__}.{field}", str(getattr(word, field)), rule, _ONE_RELEASE)


def _shown(found: Any) -> str:
    """A number; of anything else, which may hold a secret, what it is."""
    return repr(found) if isinstance(found, int | float | None) else type(found).__name__


@cache
def _reader(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_words[name])


@cache
def _writer(name: str) -> SchemaSerializer:
    return SchemaSerializer(_reader(name).core_schema, CoreConfig(ser_json_inf_nan="constants"))
