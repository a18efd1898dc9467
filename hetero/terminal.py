"""Text that somebody else wrote, as it is shown on a terminal: nothing in it is obeyed."""

from __future__ import annotations

import re

_COLOR = re.compile(r"\x1b\[[0-9;]*m")


def plain(text: object, most: int | None = None) -> str:
    """Lines of printable text; what steers a terminal, or turns the direction of reading, as an escape such as \\x1b.

    Colors are dropped, and a carriage return ends a line. With `most`, the beginning and the end of what is longer."""
    lines = _COLOR.sub("", str(text)).replace("\r\n", "\n").replace("\r", "\n")
    short = lines if most is None or len(lines) <= most else f"{lines[: most * 2 // 3]} ... {lines[-most // 4 :]}"
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in short)


def word(text: object, most: int = 200) -> str:
    """The same on one line, for a name."""
    return plain(text, most).replace("\n", "\\n").replace("\t", "\\t")
