"""Text of others on a terminal: shown, never obeyed."""

from __future__ import annotations

import pytest

from hetero.terminal import plain, word


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066a\u2069", "\\u2066a\\u2069"),
        ("a\x00b\x08c", "a\\x00b\\x08c"),
        ("\ud800", "\\ud800"),
        ("50%\r100%\r\nend", "50%\n100%\nend"),
        ("\x1b[36m(pid=1)\x1b[0m hello", "(pid=1) hello"),
        ("[red]a[/red]\tb\n", "[red]a[/red]\tb\n"),
        ("größe 名", "größe 名"),
    ],
)
def test_what_steers_a_terminal_is_text(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_word_is_on_one_line_and_short() -> None:
    assert word("a\nb\tc") == "a\\nb\\tc"
    assert len(word("x" * 10_000)) < 200
