"""A run that is watched in every way: curves, a scrape, its page and alerts agree with the record; bad trackers stop
nothing."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.browser import Opened, chromium, figures_of
from tests.e2e.command import Command, Run, short_folder
from tests.e2e.listeners import differences, listeners
from tests.patience import RUN_S, WAIT_S

STEPS = 30
SLOWED_AT = 18

JOB = {
    "model": {"dimensions": {"layers": 1, "hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 32, "vocab": 257}},
    "train": {"steps": STEPS, "global_batch": 3},
    "pools": {
        "nvidia": {"family": "cuda", "chip": "A800-80G", "count": 1, "tp": 1, "emulate": {}},
        "ascend": {
            "family": "ascend",
            "chip": "Ascend-910B2",
            "count": 1,
            "tp": 1,
            "emulate": {"events": [{"at_step": SLOWED_AT, "speed": 0.5}]},
        },
    },
    "balance": {
        "mode": "manual",
        "pipelines": [
            {"share": 3, "stages": [{"pool": "nvidia", "units": [0, 2]}, {"pool": "ascend", "units": [2, 4]}]}
        ],
    },
    "eval": {"every": 10, "batches": 2},
    "monitor": {"trackers": ["tensorboard", "raising", "hanging"], "prometheus_port": "auto", "port": "auto"},
    "time_scale": 3.0e6,  # steps of half a second, most of it sleep, so that no other work on the machine is seen
}

BAD_TRACKERS = """
import time

from hetero.monitoring.tracker import Tracker


class Raising(Tracker):
    def __init__(self, run, options):
        pass

    def log(self, step, time, curves):
        raise OSError("no network")

    def close(self):
        pass


class Hanging(Raising):
    def log(self, step, time_, curves):
        time.sleep(3600)
"""
ENTRY_POINTS = "[hetero.trackers]\nraising = bad_trackers:Raising\nhanging = bad_trackers:Hanging\n"


@dataclass(frozen=True)
class Page:
    """What a browser was shown by the run itself: the figures at some moments, and what it says once that has ended."""

    figures: list[dict[str, str]]
    connection: str
    elsewhere: set[str]
    """What it asked of others."""


@dataclass(frozen=True)
class Watched:
    run: Run
    exit_code: int
    screen: str
    scrape: str
    page: Page | None
    sockets: list[str]
    left: list[str]

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.run.events if event["kind"] == kind]

    def alerts(self, pool: str) -> list[dict[str, Any]]:
        kinds = "pool_slow", "pool_recovered"
        return [event for event in self.run.events if event["kind"] in kinds and event["pool"] == pool]


def _install_bad_trackers(place: Path) -> Path:
    """As pip would: a module, and metadata with its entry points."""
    folder = place / "site"
    metadata = folder / "bad_trackers-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "bad_trackers.py").write_text(BAD_TRACKERS)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-trackers\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


def _job_file(place: Path) -> Path:
    text, path = place / "text.txt", place / "job.yaml"
    text.write_bytes(bytes(range(256)) * 40)
    path.write_text(yaml.safe_dump(JOB | {"data": {"source": str(text), "seq_len": 16}}))
    return path


def _scrape(run: Run) -> str:
    (url,) = (event["data"]["url"] for event in run.events if event["kind"] == "prometheus_serves")
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        return str(answer.read().decode())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """None where there is none, for which only the page's own test skips."""
    with contextlib.ExitStack() as stack:
        found = None
        with contextlib.suppress(pytest.skip.Exception):
            found = stack.enter_context(chromium())
        yield found


def _page(browser: Any, command: Command) -> Page:
    """Watches until the run ends."""
    address = command.output.partition("dashboard on ")[2].split()[0]
    with Opened(browser, address) as opened:
        opened.page.wait_for_selector("#loss .curve")
        figures = []
        for _ in range(3):
            figures.append(opened.figures())
            opened.page.wait_for_timeout(700)
        command.wait(RUN_S)
        opened.page.wait_for_selector("#connection:text('reconnecting')")
        elsewhere = {url for url in opened.requests if not url.startswith(address)}
        return Page(figures, opened.text("#connection"), elsewhere)


@pytest.fixture(scope="module")
def watched(browser: Any) -> Iterator[Watched]:
    with short_folder() as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(_install_bad_trackers(place)))
        run = Run(place / "run")
        with Command(place, "train", _job_file(place), "--run-dir", run.folder) as command:
            run.wait_for_steps(5, command, RUN_S)
            scrape = _scrape(run)
            command.footprint.look(command.process.pid)
            sockets = differences(listeners(command.footprint.processes), "on one machine")
            page = _page(browser, command) if browser else None
            exit_code = command.wait(RUN_S)
            yield Watched(run, exit_code, command.output, scrape, page, sockets, command.footprint.left_after(WAIT_S))


def test_it_ends_well_and_leaves_nothing(watched: Watched) -> None:
    assert watched.exit_code == 0, watched.screen
    assert [line["step"] for line in watched.run.metrics] == list(range(STEPS))
    assert watched.left == []


def test_every_socket_is_on_the_page_of_security(watched: Watched) -> None:
    assert watched.sockets == []


def test_bad_trackers_lose_their_own_lines_alone(watched: Watched) -> None:
    (failed,) = watched.events("tracker_failed")
    assert failed["data"] == {"tracker": "raising", "cause": "OSError: no network"}
    (abandoned,) = watched.events("tracker_abandoned")
    assert abandoned["data"]["tracker"] == "hanging"
    lost = {event["data"]["tracker"]: event["data"]["lost_lines"] for event in watched.events("tracker_incomplete")}
    assert lost == {"raising": STEPS, "hanging": STEPS}


def test_the_hanging_one_did_not_slow_the_steps(watched: Watched) -> None:
    metrics = watched.run.metrics
    between = [after["time"] - before["time"] for before, after in pairwise(metrics)]
    assert sum(between) < 2 * sum(line["step_s"] for line in metrics)


def test_curves_are_those_of_the_journal(watched: Watched) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(watched.run.folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    metrics = watched.run.metrics
    assert [event.step for event in curves.Scalars("eval_loss")] == [9, 19, 29]
    for name, values in {
        "loss": [line["loss"] for line in metrics],
        "emulated/pools/ascend/capacity_tokens_per_s": [
            line["pools"]["ascend"]["capacity_tokens_per_s"] for line in metrics
        ],
    }.items():
        assert [event.value for event in curves.Scalars(name)] == pytest.approx(values)


def test_the_held_out_loss_is_in_the_lines_of_its_steps_and_told(watched: Watched) -> None:
    in_lines = {line["step"]: line["eval_loss"] for line in watched.run.metrics if "eval_loss" in line}
    assert list(in_lines) == [9, 19, 29]
    assert {event["step"]: event["data"]["eval_loss"] for event in watched.events("validated")} == in_lines
    assert all(0 < loss < 7 for loss in in_lines.values())


def test_a_scrape_of_the_run_under_way_has_its_figures(watched: Watched) -> None:
    samples = [sample for family in text_string_to_metric_families(watched.scrape) for sample in family.samples]
    (step,) = (sample.value for sample in samples if sample.name == "hetero_step")
    line = watched.run.metrics[int(step)]
    found = {s.labels["pool"]: s.value for s in samples if s.name == "hetero_pool_capacity_tokens_per_second"}
    assert found == {name: pool["capacity_tokens_per_s"] for name, pool in line["pools"].items()}
    (sent,) = (
        sample.value
        for sample in samples
        if sample.name == "hetero_bridge_sent_bytes_total" and sample.labels["pool"] == "nvidia"
    )
    assert sent == sum(line["pools"]["nvidia"]["bytes_sent"] for line in watched.run.metrics[: int(step) + 1]) > 0
    assert {sample.labels["emulated"] for sample in samples} == {"true"}


def test_its_page_shows_what_is_recorded_until_it_ends(watched: Watched) -> None:
    if watched.page is None:
        with chromium():  # which says why there is none
            pytest.fail("a browser came late")
    for shown in watched.page.figures:
        recorded = figures_of(watched.run.metrics[int(shown["step"])])
        assert {name: float(shown[name]) for name in recorded} == recorded
    assert watched.page.connection == "reconnecting"
    assert watched.page.elsewhere == set()


def test_the_slowed_pool_is_told_within_three_steps(watched: Watched) -> None:
    """A busy machine may slow a pool for moments of its own, but what the job file slowed is told and stays told."""
    last = watched.alerts("ascend")[-1]
    assert last["kind"] == "pool_slow"
    assert last["step"] < SLOWED_AT + 3
    assert any(event["rank"] == "ascend:0" for event in watched.events("rank_slow"))


def test_capacity_falls_as_the_chip_was_slowed(watched: Watched) -> None:
    capacities = [line["pools"]["ascend"]["capacity_tokens_per_s"] for line in watched.run.metrics]
    before, after = median(capacities[:SLOWED_AT]), median(capacities[SLOWED_AT:])
    assert after / before == pytest.approx(0.5, abs=0.15)
