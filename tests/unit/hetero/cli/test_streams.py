"""Standard output and error that are closed, full, left by their reader, or of few letters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hetero.cli.streams import OutputStream, StreamLost
from tests.architecture.tree import ROOT

SCRIPT = Path(sys.executable).with_name("hetero")
PRINTS = """
import os, sys
from hetero.cli import streams
streams.install()
{last}
with open(os.devnull) as file:
    assert file.fileno() > 2, file.fileno()
for number in range(3):
    print("out", number, chr(27744), flush=True)
    print("err", number, file=sys.stderr)
"""


def _shell(redirection: str, script: str, **own: str) -> subprocess.CompletedProcess[str]:
    """The script in a shell that redirects its streams."""
    command = f'"$PYTHON" -c "$SCRIPT" {redirection}'
    surroundings = {**os.environ, "PYTHON": sys.executable, "SCRIPT": script, **own}
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=surroundings, text=True, capture_output=True, check=False
    )


@pytest.mark.parametrize(("fd", "name"), [(1, "standard output"), (2, "standard error")])
def test_a_full_stream_ends_a_command(fd: int, name: str) -> None:
    ended = _shell(f"{fd}>/dev/full", PRINTS.format(last=""))
    assert ended.returncode == 1
    if fd == 1:
        assert f"StreamLost: {name}: None: must take what is printed (No space left" in ended.stderr


@pytest.mark.parametrize(
    ("redirection", "left"),
    [
        ("> /dev/full", "err 2"),
        ("2> /dev/full", "out 2"),
        (">&-", "err 2"),
        ("2>&-", "out 2"),
        ("<&- >&- 2>&-", ""),
    ],
)
def test_a_run_outlives_its_streams(redirection: str, left: str) -> None:
    ended = _shell(redirection, PRINTS.format(last="streams.last()"))
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert left in ended.stdout + ended.stderr


def test_a_run_outlives_the_reader_of_its_pipe() -> None:
    read, write = os.pipe()
    os.close(read)
    script = PRINTS.format(last="streams.last()")
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr.count(b"standard output is lost (Broken pipe)")) == (0, 1)


def test_a_run_outlives_the_terminal_that_both_go_to() -> None:
    """As under nohup, or with a signal of the closing terminal ignored. What goes to a terminal is written by lines."""
    script = PRINTS.format(last="streams.last()") + "open(os.environ['LEFT'], 'w').write('went on')"
    read, left = os.pipe()
    surroundings = {**os.environ, "PYTHONUNBUFFERED": "1", "LEFT": f"/dev/fd/{left}"}
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=surroundings, stdout=full, stderr=full, pass_fds=[left],
            check=False,
        )  # fmt: skip
    os.close(left)
    with open(read) as file:
        assert (ended.returncode, file.read()) == (0, "went on")


def test_what_is_lost_is_told_on_the_other() -> None:
    ended = _shell("> /dev/full", PRINTS.format(last="streams.last()"))
    assert ended.stderr.count("standard output is lost (No space left on device); the run goes on") == 1


def test_a_stream_fails_once_and_quietly_where_its_reader_has_left() -> None:
    read, write = os.pipe()
    os.close(read)
    sink = OutputStream(write, "a pipe")
    with pytest.raises(StreamLost, match="a pipe") as caught:
        sink.write(b"x")
    assert sink.write(b"xy") == 2
    os.close(write)
    assert caught.value.quiet


@pytest.mark.parametrize(
    "own", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_terminal_of_few_letters(own: dict[str, str]) -> None:
    ended = _shell("", PRINTS.format(last=""), **own)
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, "out 0 ?")


COMMANDS = ["--help", "plan JOB", "doctor --json", "top RUN"]
ANOTHER_TIME = ["plan JOB --json", "doctor", "report RUN"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [*COMMANDS, *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ANOTHER_TIME)]
)
def test_every_command_that_prints_names_the_stream(command: str, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"seq": 0, "time": 1.0, "step": null, "kind": "started", "data": {}}\n')
    arguments = command.replace("JOB", "configs/runs/auto.yaml").replace("RUN", str(tmp_path)).split()
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [SCRIPT, *arguments], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("standard output\n  rule    must take what is printed (No space left on device)")
