"""A small job, ways to spoil it, and what every refusal must look like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from hetero.cli.app import run

LINES, COLUMNS = 24, 100

JOB = """\
model: {dimensions: {layers: 2, hidden: 16, heads: 4, kv_heads: 2, ffn: 32, vocab: 257}}
data:
  source: python-stdlib
  seq_len: 16
train:
  steps: 4
  global_batch: 4
  optimizer: {lr: 1.0e-3}
pools:
  nvidia: {family: cuda, chip: A800-80G, count: 2, tp: 2, emulate: {}}
  ascend: {family: ascend, chip: Ascend-910B2, count: 1, tp: 1, emulate: {}}
bridge:
  links:
    - {between: [nvidia, ascend], transport: grpc}
balance:
  pipelines:
    - share: 4
      stages:
        - {pool: nvidia, tp: 2, units: [0, 2]}
        - {pool: ascend, tp: 1, units: [2, 6]}
checkpoint: {every: 0}
monitor: {port: null}
time_scale: 1.0
"""


@dataclass
class Refusal:
    """What a command that was refused has printed."""

    screen: str

    def says(self, *parts: str) -> None:
        missing = [part for part in parts if part not in self.screen]
        assert not missing, f"without {missing}:\n{self.screen}"

    def is_at(self, file: Path, text: str, key: str) -> None:
        """Its first line names the key, and the line of the file that `text` stands on."""
        lines = enumerate(file.read_text().splitlines(), 1)
        line = next(number for number, content in lines if text in content)
        assert f"{file}:{line}: {key}\n" in self.screen, self.screen


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Refusal:
    """Runs the command in this process; checks that it is refused as every mistake is."""
    code = run([str(argument) for argument in arguments])
    screen = capsys.readouterr().err
    check_screen(code, screen)
    return Refusal(screen)


def check_screen(code: int, screen: str) -> None:
    """One screen, with what is wrong, the rule and the remedy, and the exit code of a user's mistake."""
    assert code == 2, screen
    assert "Traceback" not in screen
    rows = [line.split()[0] for line in screen.splitlines() if line.startswith("  ") and line[2:3].strip()]
    assert [row for row in rows if row in ("rule", "remedy")] == ["rule", "remedy"], screen
    assert sum(math.ceil(len(line) / COLUMNS) or 1 for line in screen.splitlines()) <= LINES, screen


def spoilt(folder: Path, old: str = "", new: str = "") -> Path:
    """The job with one text replaced by another."""
    assert JOB.count(old) >= 1, old
    path = folder / "job.yaml"
    path.write_text(JOB.replace(old, new, 1) if old else JOB)
    return path
