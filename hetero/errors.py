"""One screen for any error that explains itself.

Every package raises its own exceptions. An exception *explains itself* when it carries `key`, `value`, `rule` and
`remedy`; `file` and `line` are optional. It is the user's mistake unless its class sets `failure = True`, which says
that the run failed although the user asked for something sensible (a dead rank, a lost peer).
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hetero.masking import MASK, concealed, hidden, without_passwords
from hetero.terminal import word

PARTS = ("key", "value", "rule", "remedy")
LINES = {"value": 4, "rule": 14, "remedy": 5}
"""What each part may take of the screen, whose lines are WIDTH wide."""
WIDTH = 88
SPOKEN = {"value", "rule", "remedy", "cause", "also", "error", "note", "message"}
"""The parts of an error or event that quote what a process or library has said."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class ExplainedError(Exception):
    """Base for the errors of the `hetero` package: what was wrong, with which value, by which rule, and what to do."""

    failure = False

    def __init__(
        self, key: str, value: Any, rule: str, remedy: str, *, file: str | None = None, line: int | None = None
    ) -> None:
        shown = concealed(str(key), value)
        if shown is not value and shown == MASK and str(value):
            rule = rule.replace(str(value), MASK)
        super().__init__(f"{key}: {shown!r}: {rule}; {remedy}")
        self.key, self.value, self.rule, self.remedy = key, shown, rule, remedy
        self.file, self.line = file, line


@contextlib.contextmanager
def unspoken(secrets: Sequence[str]) -> Iterator[None]:
    """An error that explains itself leaves without these values in its words."""
    try:
        yield
    except ExplainedError as error:
        for name in SPOKEN & vars(error).keys():
            setattr(error, name, hidden(getattr(error, name), secrets))
        error.args = hidden(error.args, secrets)
        raise


def explains_itself(error: BaseException) -> bool:
    return all(hasattr(error, part) for part in PARTS)


def is_user_mistake(error: BaseException) -> bool:
    return explains_itself(error) and not getattr(error, "failure", False)


def exit_code(error: BaseException) -> int:
    """2 for the user's mistake, 1 for a failure."""
    return 2 if is_user_mistake(error) else 1


def render(error: BaseException) -> str:
    """The error as the few lines that a person reads; an error that does not explain itself gives its type and text."""
    if not explains_itself(error):
        return f"{type(error).__name__}: {error}"
    heading = ": ".join(part for part in (_place(error), _cut(str(error.key), 200)) if part)  # type: ignore[attr-defined]
    rows = [(name, getattr(error, name)) for name in PARTS[1:]]
    return "\n".join(
        [heading, *(f"  {name:<7} {_shown(value, LINES[name])}" for name, value in rows if value is not None)]
    )


def is_disk_full(error: BaseException) -> bool:
    """Of the system's own errors, and of those that libraries make of them: no room, no quota, or a limit on files."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    return number in _FULL


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known one if there is any, and all of them."""
    names = sorted(set(known))
    near = difflib.get_close_matches(word.lower(), [name.lower() for name in names], n=1, cutoff=0.5)
    guess = next((name for name in names if near and name.lower() == near[0]), None)
    listed = f"known: {', '.join(names) or 'none'}"
    return f"did you mean {guess!r}? ({listed})" if guess else listed


def _place(error: BaseException) -> str:
    file, line = getattr(error, "file", None), getattr(error, "line", None)
    return f"{file}:{line}" if file and line else str(file or "")


def _shown(value: Any, most: int) -> str:
    """What fits `most` lines, and does nothing to the terminal."""
    lines = str(value).splitlines() or [repr(value)]
    if len(lines) > most:
        lines = [*lines[: most - 1], f"and {len(lines) - most + 1} more lines"]
    return "\n          ".join(_cut(line, most * WIDTH // len(lines)) for line in lines)


def _cut(text: str, most: int) -> str:
    """On one line, its beginning and its end where it is long; addresses without their passwords."""
    return word(without_passwords(text), most)
