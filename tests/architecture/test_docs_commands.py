"""Every command in the documents: the program takes it, and some test runs it."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from typing import Any

import pytest

from tests.architecture.markdown import documents
from tests.architecture.tree import ROOT
from tests.unit.hetero.cluster.ray_commands import hetero, program

RUN_AS_THEY_STAND = ("docs/getting-started.md", "docs/fine-tuning.md")
"""tests/e2e/test_getting_started.py and test_chat_story.py run the commands of these pages one after another."""
RUN_BY = {
    "make demo": ".ci/run::make demo",
    "make install": ".ci/run::make install",
    "make check": ".ci/run::make check",
    "make test": ".ci/run::make test",
    "hetero --help": "tests/architecture/test_imports.py::test_help_is_fast_and_light",
    "hetero doctor": "tests/unit/hetero/job/test_doctor.py::test_the_command_says_by_its_exit_code_what_blocks",
    "hetero plan": "tests/unit/hetero/cli/test_commands.py::test_plan_prints_stages_grid_and_prediction",
    "hetero profile": "tests/unit/hetero/cli/test_profile.py::test_what_is_measured_is_shown_written_and_planned_by",
    "hetero train": "tests/e2e/test_quickstart.py::finished",
    "hetero train job.yaml --address": "tests/e2e/test_cluster.py::test_jobs_from_outside",  # what a handed-in job runs
    "hetero data prepare": "tests/unit/hetero/cli/test_data.py::test_prepare_says_what_there_is",
    "hetero data look": "tests/unit/hetero/cli/test_data.py::test_look_tells_what_is_learnt",
    "hetero submit": "tests/e2e/test_cluster.py::test_jobs_from_outside",
    "hetero jobs list": "tests/e2e/test_cluster.py::test_jobs_from_outside",
    "hetero jobs status": "tests/e2e/test_cluster.py::test_jobs_from_outside",
    "hetero jobs logs": "tests/e2e/test_cluster.py::test_jobs_from_outside",
    "hetero jobs stop": "tests/e2e/test_cluster.py::_stop",
    "hetero jobs fetch": "tests/e2e/test_cluster.py::test_jobs_from_outside",
    "hetero top": "tests/unit/hetero/monitoring/test_top.py::test_the_command_prints_once_into_a_pipe",
    "hetero replan": "tests/unit/hetero/test_live_run.py::test_the_command_waits_for_the_answer",
    "hetero dashboard": "tests/e2e/browser.py::_start",
    "hetero checkpoint inspect": "tests/unit/hetero/cli/test_checkpoint.py::test_inspect",
    "hetero checkpoint verify": "tests/unit/hetero/cli/test_checkpoint.py::test_verify",
    "hetero checkpoint export": "tests/unit/hetero/cli/test_checkpoint.py::test_export_by_the_job_of_the_run",
    "hetero checkpoint import": "tests/unit/hetero/cli/test_checkpoint.py::test_import_and_back",
    "hetero align": "tests/unit/hetero/align/test_alignment.py::test_the_command_names_the_first_operator",
    "hetero report": "tests/e2e/test_report.py::_page",
    "python -m tests.stand_in.ascend.called": "tests/stand_in/test_ascend.py::test_the_contract_of_backends",
    "python -m hetero.job.reference": "tests/unit/hetero/job/test_reference.py::test_the_command_prints_the_page",
}
"""The function, or the line of the script, that runs a command, wherever else it stands."""
NOT_RUN = {
    ".ci/run": "runs the tests itself",
    "ray": "tests/unit/hetero/cluster has Ray read them; the cluster of tests/e2e is started from Python",
    "scp": "needs a second machine",
    "ssh": "needs a second machine",
    "pip install": "the extras are in constraints.txt, which make install takes",
    "pre-commit": "is not installed by make install",
    "python -m pytest": "runs the tests themselves",
    "python -m benchmarks": "take minutes; make bench runs them",
}
PROGRAMS = r"(?:hetero|make|python|pip|ray|scp|ssh|git|\.ci/run|pre-commit)"


def _lines() -> list[tuple[str, str]]:
    """(document, command) of every line in a block of bash, without its comment."""
    lines = [
        (document.name, shlex.join(shlex.split(line, comments=True)))
        for document in documents()
        for block in document.in_language("bash")
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [(name, command) for name, command in lines if command]


def _spans() -> list[tuple[str, str]]:
    """(document, command) of every command in the prose; it may be cut short, or hold placeholders."""
    spans = {(document.name, span) for document in documents() for span in document.spans()}
    return sorted((name, span) for name, span in spans if re.match(rf"{PROGRAMS} \S", span))


LINES, SPANS = _lines(), _spans()
HETERO = [pytest.param(command, id=f"{name}: {command}") for name, command in LINES if command.startswith("hetero ")]


def test_there_are_commands() -> None:
    assert {name for name, _ in LINES} >= {"README.md", "CONTRIBUTING.md", *RUN_AS_THEY_STAND, "docs/cluster.md"}
    assert {name for name, _ in SPANS} >= {"README.md", "docs/job.md", "docs/troubleshooting.md"}


def test_the_readme_begins_with_two_commands() -> None:
    assert [command for name, command in LINES if name == "README.md"] == ["make demo", "make test"]


def test_commands_stand_in_blocks_of_bash_alone() -> None:
    blocks = [block for document in documents() for block in document.blocks if block.language != "bash"]
    command = re.compile(rf"^(\.venv/bin/)?{PROGRAMS} ", re.MULTILINE)
    assert not [str(block) for block in blocks if command.search(block.text)]


@pytest.mark.parametrize("line", HETERO)
def test_hetero_takes_the_line(line: str) -> None:
    hetero(line)


def test_every_command_is_run_by_a_test_or_said_not_to_be() -> None:
    known = (*RUN_BY, *NOT_RUN)
    found = {command for name, command in LINES if name not in RUN_AS_THEY_STAND} | {span for _, span in SPANS}
    groups = {"hetero jobs"}
    assert not [command for command in found - groups if not command.startswith(known)]
    assert not [prefix for prefix in known if not any(command.startswith(prefix) for _, command in [*LINES, *SPANS])]


@pytest.mark.parametrize(("command", "place"), RUN_BY.items())
def test_it_is_run_there(command: str, place: str) -> None:
    """The place exists, and its file names the command's last word."""
    file, _, part = place.partition("::")
    text = (ROOT / file).read_text()
    assert re.search(rf"^ *def {part}\(" if file.endswith(".py") else rf"^{part}\b", text, re.MULTILINE)
    assert command.split()[-1] in text


@pytest.mark.parametrize(("document", "span"), SPANS)
def test_a_command_in_the_prose_names_what_there_is(document: str, span: str) -> None:
    program, *words = span.split()
    if program == "hetero":
        _check_hetero(words)
    elif program == "make":
        assert _is_target(words[0])
    elif program == "python" and words[0] == "-m":
        assert "NAME" in words[1] or find_spec(words[1])
    elif program == "pip" and (extra := re.search(r"hetero\[(\w+)\]", span)):
        assert re.search(rf"^{extra[1]} =$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)


def _check_hetero(words: list[str]) -> None:
    """The subcommands and the options are ones that there are; the rest may be placeholders."""
    command: Any = program()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert not {word.strip("[]") for word in words if word.strip("[").startswith("-")} - options - {"--help"}


def test_make_has_the_targets() -> None:
    assert not [command for _, command in LINES if command.startswith("make ") and not _is_target(command.split()[1])]


def _is_target(name: str) -> bool:
    return bool(re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE))
