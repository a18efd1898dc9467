from __future__ import annotations

import errno

import pytest

from hetero.errors import ExplainedError, did_you_mean, exit_code, is_disk_full, render


class Died(ExplainedError):
    failure = True


def test_a_users_mistake_reads_as_place_key_value_rule_remedy() -> None:
    error = ExplainedError("train.steps", -1, "must be positive", "use 10", file="a.yaml", line=7)
    assert render(error).splitlines() == [
        "a.yaml:7: train.steps",
        "  value   -1",
        "  rule    must be positive",
        "  remedy  use 10",
    ]


def test_any_package_can_explain_itself_without_importing_this_one() -> None:
    error = RuntimeError("x")
    error.key, error.value, error.rule, error.remedy = "chip", "B2", "is unknown", "known: A"  # type: ignore[attr-defined]
    assert render(error).startswith("chip\n  value   B2")
    assert exit_code(error) == 2


def test_other_errors_keep_their_type_and_are_failures() -> None:
    assert render(ValueError("boom")) == "ValueError: boom"
    assert exit_code(ValueError("boom")) == 1


def test_a_failure_that_explains_itself_is_still_a_failure() -> None:
    assert exit_code(Died("rank", "a:0", "died", "see its log")) == 1


def test_did_you_mean_names_the_nearest_and_all() -> None:
    assert did_you_mean("stps", ["steps", "seed"]) == "did you mean 'steps'? (known: seed, steps)"
    assert did_you_mean("zzz", ["steps"]) == "known: steps"
    assert did_you_mean("zzz", []) == "known: none"


def test_whatever_the_parts_hold_it_is_one_screen() -> None:
    screen = render(ExplainedError("k" * 999, "v" * 9999, "\n".join(["rule " * 50] * 99), "", file="f" * 9))
    assert "k ... k" in screen
    assert "v ... v" in screen
    assert "and 86 more lines" in screen
    assert len(screen.splitlines()) < 20
    assert len(screen) < 24 * 100


def test_nothing_printed_commands_the_terminal() -> None:
    assert "value   a\\x1b[2Jb" in render(ExplainedError("key", "a\x1b[2Jb", "rule", "remedy"))


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("os error"), False),
    ],
)
def test_a_full_disk_is_known_from_other_errors(error: Exception, full: bool) -> None:
    assert is_disk_full(error) is full
