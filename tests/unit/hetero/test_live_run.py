"""A run whose plan changes while it goes on, on a fleet in simulated time: who asks for it, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest

from balancer.plan.plan import Plan
from balancer.search.search import search
from hetero.cli.app import run as command
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.planning.problem import problem
from hetero.job.run.replan_request import REQUEST, ReplanRequest, leave
from hetero.monitoring.follow import follow
from hetero.monitoring.journal import EVENTS, METRICS, read
from hetero.monitoring.status import status
from hetero.run import train
from tests.unit.balancer.rebalance.simulated_run import slow_between, slower
from tests.unit.hetero.played_session import PAUSE_BYTES, PlayedSession, Ratios, play

SLOW, AGAIN, STEPS = 20, 60, 90
BY_HAND = {"pipelines": [{"share": 32, "stages": [{"pool": "nvidia", "units": [0, 10]}]},
                         {"share": 32, "stages": [{"pool": "kunlun", "units": [0, 10]}]}]}  # fmt: skip


class Runs:
    """Trains jobs on played fleets, each in a folder of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.run_dir, self._patch, self._text = folder / "run", patch, folder / "text.txt"
        self._text.write_bytes(bytes(range(256)) * 40)
        self.session: PlayedSession
        self.carried = False

    def job(self, **balance: Any) -> Job:
        sizes = {"layers": 4, "hidden": 1024, "heads": 16, "kv_heads": 16, "ffn": 4096, "vocab": 257}
        chips = {"nvidia": ("cuda", "A800-80G"), "kunlun": ("kunlun", "Kunlun-P800")}
        return load_job(
            {
                "model": {"dimensions": {"family": "llama", **sizes}},
                "data": {"source": str(self._text), "tokenizer": "bytes", "seq_len": 128},
                "train": {"steps": STEPS, "global_batch": 64, "micro_batch": 1, "precision": "float32"},
                "pools": {
                    name: {"family": family, "chip": chip, "count": 1, "tp": 1, "emulate": {}}
                    for name, (family, chip) in chips.items()
                },
                "bridge": {"links": [{"between": ["nvidia", "kunlun"], "gbit_per_s": 10000, "rtt_ms": 0.01}]},
                "time_scale": 20.0,
                "balance": balance,
            },
            [],
        )

    def train(self, job: Job, ratios: Ratios, after_step: Any = lambda step: None) -> list[dict[str, Any]]:
        """Its lines of metrics."""
        self.session = PlayedSession(job, ratios, after_step)
        play(self._patch, self.session, self.carried)
        train(job, self.run_dir)
        return list(read(self.run_dir / METRICS))

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        return [event for event in read(self.run_dir / EVENTS) if event["kind"] in kinds]

    def plan(self, name: str = "plan.json") -> Plan:
        return Plan.from_json((self.run_dir / name).read_text())


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, monkeypatch)


def shares(plan: Plan) -> list[int]:
    return [pipeline.share for pipeline in plan.pipelines]


def test_a_pool_that_slows_and_recovers_has_its_shares_changed_and_given_back(runs: Runs) -> None:
    job = runs.job()
    lines = runs.train(job, slow_between("nvidia", 1.5, SLOW, AGAIN))
    assert [line["step"] for line in lines] == list(range(STEPS))
    best = {ratio: search(slower(problem(job), {"nvidia": ratio})).prediction.step_s for ratio in (1.0, 1.5)}
    scale = job.time_scale
    for step, ratio in ((SLOW - 1, 1.0), (SLOW + 10, 1.5), (AGAIN - 1, 1.5), (AGAIN + 10, 1.0)):
        assert lines[step]["step_s"] <= best[ratio] * scale / 0.95
    assert [line["epoch"] for line in lines][:: STEPS - 1] == [0, 2]
    slower_, back = runs.events("rebalanced")
    assert (slower_["data"]["from_epoch"], slower_["data"]["to_epoch"], back["data"]["to_epoch"]) == (0, 1, 2)
    assert shares(runs.plan()) == shares(runs.plan("plan-0.json")) != shares(runs.plan("plan-1.json"))
    assert slower_["data"]["slowness"]["nvidia:1"] == pytest.approx(1.5)
    assert {"step_s", "stays_s", "becomes_s", "gain_s", "cost_s", "moved_bytes", "rung"} <= slower_["data"].keys()
    assert slower_["data"]["sent_bytes"] == PAUSE_BYTES
    assert slower_["data"]["pause_s"] > 0


def test_what_is_told_after_a_change_is_of_the_new_plan(runs: Runs) -> None:
    lines = runs.train(runs.job(), slow_between("nvidia", 1.5, SLOW, STEPS))
    first, second = runs.session.specs
    assert (second.epoch, second.state, second.start) == (1, "live", runs.events("rebalanced")[0]["step"])
    assert {line["epoch"] for line in lines[second.start :]} == {1}
    before, after = (lines[step]["pools"]["nvidia"]["tokens_per_s"] / lines[step]["tokens_per_s"] for step in (5, -1))
    assert before / after == pytest.approx(shares(first.plan)[0] / shares(second.plan)[0], rel=0.01)
    assert lines[-1]["goodput"] >= lines[second.start]["goodput"] * 0.9
    seen = status(follow(runs.run_dir))
    assert (seen.epoch, seen.plan, seen.state) == (1, runs.plan(), "finished")


@pytest.mark.parametrize("carried", [False, True])
def test_a_change_leaves_what_is_saved_as_it_was(runs: Runs, carried: bool) -> None:
    """Weights of a model's directory that nobody carries would only fill a host's disk."""
    job, runs.carried = runs.job(**BY_HAND), carried
    every, steps = job.checkpoint.model_copy(update={"every": STEPS, "format": "hf"}), 10
    job = job.model_copy(update={"checkpoint": every, "train": job.train.model_copy(update={"steps": steps})})
    runs.train(job, lambda step: {}, Person(runs, {5: by_hand(20)}))
    assert [spec.checkpoint_directory for spec in runs.session.specs] == [not carried] * 2


@pytest.mark.parametrize("balance", [{"live": "off"}, BY_HAND], ids=["off", "by hand"])
def test_a_plan_stays_where_nobody_looks_after_it(runs: Runs, balance: dict[str, Any]) -> None:
    runs.train(runs.job(**balance), slow_between("nvidia", 1.5, SLOW, STEPS))
    assert len(runs.session.specs) == 1


def test_a_plan_by_hand_is_looked_after_if_the_job_says_so(runs: Runs) -> None:
    runs.train(runs.job(**BY_HAND, live="auto"), slow_between("nvidia", 1.5, SLOW, STEPS))
    assert [event["data"]["by"] for event in runs.events("rebalanced")] == ["balancer"]


def test_a_change_that_is_not_worth_it_is_told_with_its_reasons(runs: Runs) -> None:
    runs.train(runs.job(), slow_between("nvidia", 1.5, STEPS - 5, STEPS))
    (kept,) = runs.events("kept")
    assert kept["data"]["gain"] > 0.03
    assert kept["data"]["gain_s"] < 1.5 * kept["data"]["cost_s"]
    assert not runs.events("rebalanced")


class Person:
    """Asks for plans after some steps."""

    def __init__(self, runs: Runs, asks: dict[int, Plan | None]) -> None:
        self._runs, self._asks = runs, asks

    def __call__(self, step: int) -> None:
        if step in self._asks:
            leave(self._runs.run_dir, ReplanRequest(name=f"after {step}", plan=self._asks[step]))


def by_hand(first: int) -> Plan:
    pipelines = json.loads(json.dumps(BY_HAND["pipelines"]))
    pipelines[0]["share"], pipelines[1]["share"] = first, 64 - first
    return Plan.model_validate({"pipelines": pipelines})


def test_a_person_gets_the_plan_that_he_asks_for_and_takes_it_back(runs: Runs) -> None:
    """And the balancer leaves it alone, whatever the chips do."""
    person = Person(runs, {5: by_hand(20), 40: by_hand(24), 50: None, 60: None, 70: None})
    runs.train(runs.job(), slow_between("nvidia", 1.5, SLOW, STEPS), person)
    first, *others = (spec.plan for spec in runs.session.specs)
    assert [shares(plan) for plan in others] == [[20, 44], [24, 40], [20, 44], shares(first)]
    told = runs.events("rebalanced")
    assert [event["data"]["by"] for event in told] == ["person"] * 4
    assert [event["data"]["back"] for event in told] == [False, False, True, True]
    (refused,) = runs.events("replan_refused")
    assert (refused["data"]["request"], refused["data"]["key"]) == ("after 70", "--back")
    assert [plan.epoch for plan in others] == [1, 2, 3, 4]
    assert shares(runs.plan("plan-2.json")) == [24, 40]


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        (by_hand(60).model_copy(update={"pipelines": by_hand(60).pipelines[:1]}), "sum to the global batch of 64"),
        (by_hand(32), "is the one that the run obeys"),
    ],
    ids=["illegal", "the same"],
)
def test_a_plan_that_cannot_be_obeyed_is_refused_and_the_run_goes_on(runs: Runs, asked: Plan, rule: str) -> None:
    lines = runs.train(runs.job(**BY_HAND), lambda step: {}, Person(runs, {5: asked}))
    assert (len(lines), len(runs.session.specs)) == (STEPS, 1)
    (refused,) = runs.events("replan_refused")
    assert rule in refused["data"]["rule"]
    assert refused["data"]["request"] == "after 5"


def test_a_request_that_others_could_have_written_is_not_obeyed(runs: Runs) -> None:
    def open_to_all(step: int) -> None:
        if step == 5:
            leave(runs.run_dir, ReplanRequest(plan=by_hand(20)))
            (runs.run_dir / "replan.json").chmod(0o666)

    runs.train(runs.job(**BY_HAND), lambda step: {}, open_to_all)
    assert len(runs.session.specs) == 1
    (warning,) = [event for event in runs.events("warning") if "replan.json" in event["data"]["note"]]
    assert "writable by its user alone" in warning["data"]["note"]


class Shell:
    """Another shell, in which somebody types `hetero replan` after a step, and the run goes on once it is asked."""

    def __init__(self, runs: Runs, *asks: tuple[int, list[str]]) -> None:
        self._runs, self._asks = runs, dict(asks)
        self._threads: list[Thread] = []
        self.codes: list[int] = []

    def __call__(self, step: int) -> None:
        if step in self._asks:
            line = ["replan", str(self._runs.run_dir), *self._asks[step]]
            self._threads.append(Thread(target=lambda: self.codes.append(command(line))))
            self._threads[-1].start()
            while self._threads[-1].is_alive() and not (self._runs.run_dir / REQUEST).exists():
                sleep(0.01)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def test_the_command_waits_for_the_answer(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted, illegal = tmp_path / "wanted.json", tmp_path / "illegal.json"
    wanted.write_text(by_hand(20).to_json())
    illegal.write_text(by_hand(20).model_copy(update={"schedule": "unheard-of"}).to_json())
    shell = Shell(runs, (5, ["--plan", str(wanted)]), (10, ["--plan", str(illegal)]), (15, ["--back"]))
    runs.train(runs.job(**BY_HAND), lambda step: {}, shell)
    shell.join()
    assert sorted(shell.codes) == [0, 0, 2]
    assert [shares(spec.plan) for spec in runs.session.specs] == [[32, 32], [20, 44], [32, 32]]
    told = capsys.readouterr()
    assert "from step 8 on, as epoch 1" in told.out
    assert "unheard-of" in told.err


@pytest.mark.parametrize(
    ("arguments", "key"), [([], "--plan"), (["--back"], "RUN_DIR")], ids=["no plan", "no run goes on"]
)
def test_the_command_asks_nobody_in_vain(
    arguments: list[str], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["replan", str(tmp_path), *arguments]) == 2
    assert key in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
