from __future__ import annotations

from hetero.errors import ExplainedError, did_you_mean, exit_code, render


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
