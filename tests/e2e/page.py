"""A tutorial as it stands: its files are written, its commands run one after another."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.markdown import Document
from tests.architecture.tree import ROOT
from tests.e2e.command import short_folder
from tests.patience import RUN_S

EXIT_CODE = re.compile(r"# exit code (\d)$")


@dataclass(frozen=True)
class Done:
    code: int
    screen: str


def lines(page: Document) -> list[str]:
    return [line for block in page.in_language("bash") for line in block.text.splitlines()]


@contextmanager
def checkout(page: Document) -> Iterator[Path]:
    """A checkout, to those who look no closer, with the files of the page."""
    with short_folder() as folder:
        for name in ("home", "tmp", "cache"):
            (folder / name).mkdir()
        (folder / "configs").symlink_to(ROOT / "configs")
        for block in (*page.in_language("yaml"), *page.in_language("python")):
            (folder / block.text.split("\n", 1)[0].removeprefix("# ")).write_text(block.text)
        yield folder


def started(line: str, place: Path) -> subprocess.Popen[str]:
    words = shlex.split(line, comments=True)
    words[0] = str(Path(sys.executable).with_name(words[0]))
    own = {"HOME": place / "home", "TMPDIR": place / "tmp", "XDG_CACHE_HOME": place / "cache", "COLUMNS": 200}
    return subprocess.Popen(
        words, cwd=place, env={**os.environ, **{name: str(value) for name, value in own.items()}}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(line: str, place: Path) -> Done:
    with started(line, place) as process:
        try:
            screen, _ = process.communicate(timeout=RUN_S)
        finally:
            process.kill()
    return Done(process.returncode, screen)


def ends_as_said(line: str, done: Done) -> bool:
    expected = EXIT_CODE.search(line)
    return done.code == (int(expected[1]) if expected else 0)
