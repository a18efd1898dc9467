"""Which release of this program a process is of. Words change between releases, so both ends of a pipe say it first."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from bridge.errors import ReleaseDiffers, WordError
from bridge.words.word import Word, decode

RELEASE = "0.1.0"  # the package's version too: setup.cfg reads it here


@dataclass(frozen=True)
class Release(Word):
    """The first word on a pipe, in either direction."""

    release: str


def meet(first: bytes) -> None:
    """Takes the first word of the other end. Raises ReleaseDiffers unless it is of this release."""
    theirs = None
    with suppress(WordError):  # a release that says none, or another word first
        word = decode(first)
        theirs = word.release if isinstance(word, Release) else None
    agree(theirs)


def agree(theirs: str | None) -> None:
    """Raises ReleaseDiffers unless another process of the run is of this release too."""
    if theirs != RELEASE:
        rule = f"all processes of a run are of one release, and one that it met is of {RELEASE}"
        raise ReleaseDiffers("release", theirs, rule, "install the same release for every pool and on every host")
