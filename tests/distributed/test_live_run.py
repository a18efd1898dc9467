"""A run whose plan changes under it: by the balancer when a pool slows, then by a person in another shell, and back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import hetero.run as run_module
from balancer.plan.plan import Plan
from hetero.cli.app import run as command
from hetero.cluster.host.agent import LocalAgents
from hetero.job.job import Job
from hetero.monitoring.journal import EVENTS, METRICS, read
from hetero.monitoring.metrics_line import MetricsLine
from tests.distributed.fleet import ROOT
from tests.distributed.laws import TOLERANCES, series_deviation

pytestmark = pytest.mark.exhaustive

STEPS, SLOW = 45, 6
SLOWER = {"events": [{"at_step": SLOW, "speed": 1 / 3}]}


def job(text: Path, live: str, emulate: dict[str, Any]) -> Job:
    """Actions of a twentieth of a second, nearly all of it sleep, so that hardly any other work on the machine is
    seen."""
    local = {"env": {"vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}, "count": 1}
    return Job.model_validate(
        {
            "model": {"dimensions": {"layers": 1, "hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 32, "vocab": 257}},
            "data": {"source": str(text), "seq_len": 16},
            "train": {"steps": STEPS, "global_batch": 8},
            "pools": {
                "ascend": {"family": "ascend", "chip": "Ascend-910B2", "emulate": emulate, **local},
                "kunlun": {"family": "kunlun", "chip": "Kunlun-P800", "emulate": {}, **local},
            },
            "eval": {"every": 10, "batches": 1},
            "checkpoint": {"every": 15},
            "balance": {"live": live},
            "time_scale": 6.0e6,
        }
    )


@dataclass
class Person:
    """Asks for another plan once the balancer has changed one, and then for the one before. Waits for the answers, and
    the run does not wait for him."""

    run_dir: Path
    codes: list[int] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)

    def see(self, line: MetricsLine) -> None:
        if line["epoch"] == 1 and not self.threads:
            wanted = self.run_dir.with_suffix(".json")
            wanted.write_text(_turned())
            self._type("--plan", str(wanted))
        elif line["epoch"] == 2 and len(self.threads) == 1:
            self._type("--back")

    def _type(self, *arguments: str) -> None:
        line = ["replan", str(self.run_dir), *arguments]
        self.threads.append(Thread(target=lambda: self.codes.append(command(line))))
        self.threads[-1].start()


def _turned() -> str:
    """One pipeline over both pools, in place of whatever there is."""
    stages = [{"pool": "kunlun", "units": [0, 2]}, {"pool": "ascend", "units": [2, 4]}]
    return Plan.model_validate({"pipelines": [{"share": 8, "stages": stages}]}).to_json()


@dataclass(frozen=True)
class Followed:
    folder: Path
    undisturbed: Path
    codes: list[int]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return list(read(self.folder / METRICS))

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read(self.folder / EVENTS) if event["kind"] == kind]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """On agents of this process, without Ray."""
    place = tmp_path_factory.mktemp("live")
    (text := place / "text.txt").write_bytes(bytes(range(256)) * 40)
    person, undisturbed = Person(place / "followed"), place / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "ray_runtime", lambda *_: contextlib.nullcontext())
        patch.setattr(run_module, "ray_agents", lambda *_: contextlib.nullcontext(LocalAgents()))
        run_module.train(job(text, "auto", SLOWER), person.run_dir, on_record=person.see)
        run_module.train(job(text, "off", {}), undisturbed)
    for thread in person.threads:
        thread.join()
    return Followed(person.run_dir, undisturbed, person.codes)


def test_the_balancer_follows_the_slow_pool(followed: Followed) -> None:
    first = followed.events("rebalanced")[0]
    assert first["data"]["by"] == "balancer"
    heard = [line for line in followed.lines[SLOW : first["step"]] if not line["overrun"]]
    assert 3 <= len(heard) <= 10, "steps in which a chip was late for other reasons do not count"
    assert first["data"]["slowness"]["ascend:1"] == pytest.approx(3, rel=0.1)
    assert first["data"]["rung"] == "shares"
    assert first["data"]["sent_bytes"] == 0


def test_a_person_has_the_last_word(followed: Followed) -> None:
    _, *by_person = followed.events("rebalanced")
    assert [event["data"]["by"] for event in by_person] == ["person", "person"]
    assert [event["data"]["back"] for event in by_person] == [False, True]
    assert by_person[0]["data"]["sent_bytes"] > 0
    assert followed.codes == [0, 0]
    plans = [Plan.from_json((followed.folder / name).read_text()) for name in ("plan-1.json", "plan.json")]
    assert plans[0].pipelines == plans[1].pipelines
    assert (plans[1].epoch, followed.lines[-1]["epoch"]) == (3, 3)


def test_nothing_is_lost_between_plans(followed: Followed) -> None:
    """Steps, evaluations and checkpoints come as in a run that nothing happened to, and so do losses."""
    lines, others = followed.lines, list(read(followed.undisturbed / METRICS))
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert [line["step"] for line in lines if "eval_loss" in line] == [9, 19, 29, 39, 44]
    assert [event["step"] for event in followed.events("saved")] == [15, 30, 45]
    assert (followed.folder / "trace.json").read_text().rstrip().endswith("]")
    losses = series_deviation([line["loss"] for line in lines], [line["loss"] for line in others])
    assert losses.deviation <= TOLERANCES["float32"].loss, losses
