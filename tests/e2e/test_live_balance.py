"""A run whose plan changes under it: by the balancer when a pool slows, then by a person in another shell, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from balancer.plan.plan import Plan
from tests.distributed.laws import TOLERANCES, series_deviation
from tests.e2e.command import Command, Run, short_folder
from tests.patience import RUN_S, WAIT_S

pytestmark = pytest.mark.exhaustive

STEPS, SLOW = 45, 6
SLOWER = {"events": [{"at_step": SLOW, "speed": 1 / 3}]}


def job(text: Path, live: str, emulate: dict[str, Any]) -> dict[str, Any]:
    """Steps of half a second, nearly all of it sleep, so that no other work on the machine is seen."""
    return {
        "model": {"dimensions": {"layers": 1, "hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 32, "vocab": 257}},
        "data": {"source": str(text), "seq_len": 16},
        "train": {"steps": STEPS, "global_batch": 16},
        "pools": {
            "ascend": {"family": "ascend", "chip": "Ascend-910B2", "count": 1, "emulate": emulate},
            "kunlun": {"family": "kunlun", "chip": "Kunlun-P800", "count": 1, "emulate": {}},
        },
        "eval": {"every": 10, "batches": 1},
        "checkpoint": {"every": 15},
        "balance": {"live": live},
        "time_scale": 2.0e6,
    }


@dataclass(frozen=True)
class Followed:
    run: Run
    undisturbed: Run
    shells: list[str]
    """What was said to the person."""

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.run.events if event["kind"] == kind]


@pytest.fixture(scope="module")
def followed() -> Iterator[Followed]:
    with short_folder() as place:
        text = place / "text.txt"
        text.write_bytes(bytes(range(256)) * 40)
        ways = {"followed": ("auto", SLOWER), "undisturbed": ("off", {})}
        for name, how in ways.items():
            (place / f"{name}.yaml").write_text(yaml.safe_dump(job(text, *how)))
        with Command(place, "train", place / "followed.yaml", "--run-dir", place / "followed") as command:
            run = Run(place / "followed")
            run.wait_for_steps(SLOW + 12, command, RUN_S)
            (place / "wanted.json").write_text(_turned(Plan.from_json((run.folder / "plan.json").read_text())))
            shells = [_said(place, run, "--plan", place / "wanted.json"), _said(place, run, "--back")]
            assert command.wait(RUN_S) == 0, command.output
        with Command(place, "train", place / "undisturbed.yaml", "--run-dir", place / "undisturbed") as command:
            assert command.wait(RUN_S) == 0, command.output
        yield Followed(run, Run(place / "undisturbed"), shells)


def _turned(plan: Plan) -> str:
    """One pipeline over both pools, in place of whatever there is."""
    stages = [{"pool": "kunlun", "units": [0, 2]}, {"pool": "ascend", "units": [2, 4]}]
    return Plan.model_validate({"pipelines": [{"share": 16, "stages": stages}]}).to_json()


def _said(place: Path, run: Run, *arguments: str | Path) -> str:
    with Command(place, "replan", run.folder, *arguments) as command:
        assert command.wait(WAIT_S) == 0, command.output
        return command.output


def test_the_balancer_follows_the_slow_pool(followed: Followed) -> None:
    first = followed.events("rebalanced")[0]
    assert first["data"]["by"] == "balancer"
    assert SLOW < first["step"] <= SLOW + 10
    before, after = (
        next(line["step_s"] for line in followed.run.metrics if line["step"] == step)
        for step in (first["step"] - 1, first["step"] + 1)
    )
    assert after < 0.9 * before
    assert first["data"]["slowness"]["ascend:1"] == pytest.approx(3, rel=0.1)


def test_a_person_has_the_last_word(followed: Followed) -> None:
    _, *by_person = followed.events("rebalanced")
    assert [event["data"]["by"] for event in by_person] == ["person", "person"]
    assert [event["data"]["back"] for event in by_person] == [False, True]
    assert by_person[0]["data"]["sent_bytes"] > 0
    assert all("as epoch" in said for said in followed.shells)
    plans = [Plan.from_json((followed.run.folder / name).read_text()) for name in ("plan-1.json", "plan.json")]
    assert plans[0].pipelines == plans[1].pipelines
    assert (plans[1].epoch, followed.run.metrics[-1]["epoch"]) == (3, 3)


def test_nothing_is_lost_between_plans(followed: Followed) -> None:
    """Steps, evaluations and checkpoints come as in a run that nothing happened to, and so do losses."""
    lines, others = followed.run.metrics, followed.undisturbed.metrics
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert [line["step"] for line in lines if "eval_loss" in line] == [9, 19, 29, 39, 44]
    assert [event["step"] for event in followed.events("saved")] == [15, 30, 45]
    assert (followed.run.folder / "trace.json").read_text().rstrip().endswith("]")
    losses = series_deviation([line["loss"] for line in lines], [line["loss"] for line in others])
    assert losses.deviation <= TOLERANCES["float32"].loss, losses
