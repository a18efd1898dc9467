"""Files that a command writes where its user asks for them."""

from __future__ import annotations

from pathlib import Path


def write(path: Path, text: str, option: str) -> None:
    """In place of what was there. Raises JobError, named by the command's `option`, where that cannot be."""
    from hetero.job.errors import JobError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        rule = f"must be writable ({error.strerror})"
        raise JobError(option, str(path), rule, "choose another file") from None
