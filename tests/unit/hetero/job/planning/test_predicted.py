"""What `benchmarks.predicted` makes of plans that were told and then measured."""

from __future__ import annotations

import pytest

from balancer.completion.completion import complete
from balancer.simulate.band import Band
from benchmarks.predicted import Compared, drawn, figures, plans
from hetero.job.planning.problem import problem


def _told(mean_s: float, measured: float) -> Compared:
    return Compared(Band(mean_s, 0.9 * mean_s, 1.1 * mean_s), measured, 0)


def test_errors_order_and_bands_are_told() -> None:
    found = figures({"a": _told(1.0, 1.0), "b": _told(2.2, 2.0), "c": _told(3.0, 4.0)})
    assert found["mean_error"] == pytest.approx((0.0 + 0.1 + 0.25) / 3)
    assert found["max_error"] == pytest.approx(0.25)
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert found["in_band"] == pytest.approx(2 / 3)
    turned = figures({"a": _told(3.0, 1.0), "b": _told(2.0, 2.0), "c": _told(1.0, 3.0)})
    assert turned["rank_correlation"] == pytest.approx(-1.0)


def test_all_twenty_plans_fit_chips_of_any_figures_and_no_two_are_alike() -> None:
    asked = problem(drawn(7))
    completed = {name: complete(plan, asked).to_json() for name, plan in plans().items()}
    assert len(completed) == len(set(completed.values())) == 20


def test_what_is_hidden_is_drawn_from_the_seed() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1).pools["nvidia"].emulate != drawn(2).pools["nvidia"].emulate
    assert drawn(1).bridge.links != drawn(2).bridge.links
