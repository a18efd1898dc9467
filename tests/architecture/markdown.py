"""Markdown as the tests of the documents read it: blocks, code spans, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.architecture.tree import ROOT

DOCUMENTS = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(r"```(\w*)$")
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A code block. `language` is empty for one without a fence or without a name."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Document:
    path: Path
    blocks: tuple[Block, ...]
    prose: str

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    def in_language(self, language: str) -> list[Block]:
        return [block for block in self.blocks if block.language == language]

    def spans(self) -> list[str]:
        """Code within the prose, each on one line."""
        return [" ".join(span.split()) for span in _SPAN.findall(self.prose)]

    def links(self) -> list[str]:
        return _LINK.findall(_SPAN.sub("", self.prose))

    def anchors(self) -> set[str]:
        """What a link to one of its headings ends in."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@cache
def read(path: Path) -> Document:
    lines = path.read_text(encoding="utf-8").splitlines()
    blocks = tuple(_blocks(path, lines))
    hidden = {number for block in blocks for number in range(block.line, block.line + len(block.text.splitlines()))}
    kept = [line for number, line in enumerate(lines, 1) if number not in hidden and not _FENCE.match(line)]
    return Document(path, blocks, "\n".join(kept))


def documents() -> list[Document]:
    return [read(path) for path in DOCUMENTS]


def glossary() -> dict[str, str]:
    """What it says of each word."""
    word, text = "", dict[str, str]()
    for line in read(ROOT / "docs" / "glossary.md").prose.splitlines():
        if line.startswith("#"):
            word = line.removeprefix("### ") if line.startswith("### ") else ""
            assert word not in text, f"{word} stands twice in the glossary"
        elif word:
            text[word] = f"{text.get(word, '')}{line} "
    return text


def _blocks(path: Path, lines: list[str]) -> Iterator[Block]:
    """Fenced blocks, and those that are indented by four after an empty line."""
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        start = number + 1 if fence else number
        end = start
        if fence:
            while lines[end] != "```":
                end += 1
        elif number and not lines[number - 1]:
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
        if fence or end > start:
            text = "".join(f"{line if fence else line[4:]}\n" for line in lines[start:end])
            yield Block(path, start + 1, fence[1] if fence else "", text)
        number = end + 1 if fence or end == start else end
