"""An error as another process is told of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bridge.errors import BridgeError
from bridge.words.word import WordPart


@dataclass(frozen=True)
class ErrorReport(WordPart):
    """`key`, `value`, `rule` and `remedy` are those of an error that explains itself; others have none."""

    type: str
    message: str
    key: str | None = None
    value: str | int | float | None = None
    rule: str | None = None
    remedy: str | None = None
    traceback: str | None = None

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    @classmethod
    def of(cls, error: BaseException, traceback: str | None = None) -> ErrorReport:
        """A value that JSON does not know becomes text."""
        key, value, rule, remedy = (getattr(error, part, None) for part in ("key", "value", "rule", "remedy"))
        plain = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        message, trace = _readable(str(error)), traceback and _readable(traceback)
        shown = value if plain else _text(value)
        return cls(type(error).__name__, message, _text(key), shown, _text(rule), _text(remedy), trace)

    def error(self) -> BridgeError:
        """The error of the bridge that this tells of."""
        kinds = {kind.__name__: kind for kind in BridgeError.__subclasses__()}
        kind = kinds.get(self.type, BridgeError)
        return kind(self.key or "", self.value, self.rule or "", self.remedy or "")

    def plain(self) -> dict[str, Any]:
        """What is told, for a journal."""
        return {name: part for name, part in asdict(self).items() if part is not None}


def _text(part: Any) -> str | None:
    return None if part is None else _readable(str(part))


def _readable(text: str) -> str:
    """Names of files may hold bytes that are no UTF-8, which nothing could send on."""
    return text.encode("utf-8", "backslashreplace").decode()
