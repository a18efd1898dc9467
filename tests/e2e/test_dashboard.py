"""`hetero dashboard` in a real browser, on a run that is written step by step.

With HETERO_SCREENSHOTS=DIR the pictures of the documentation are written there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import ON_EVERY_SCREEN, WAIT_MS, Opened, Server, chromium, figures_of, served
from tests.unit.hetero.monitoring.crowd import SLOWEST, write_crowd
from tests.unit.hetero.monitoring.dashboard.runs import SyntheticRun

MARKUP = '<img src="x" onerror="alert(1)">'
SCRIPT = "</script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def run(tmp_path: Path) -> Iterator[SyntheticRun]:
    run = SyntheticRun(tmp_path / "runs" / "quickstart")
    run.advance(12)
    yield run
    run.close()


@pytest.fixture
def opened(browser: Any, run: SyntheticRun) -> Iterator[Opened]:
    with served(run.folder) as address, Opened(browser, address) as opened:
        opened.wait_for_step(11)
        yield opened
        assert {url for url in opened.requests if not url.startswith(address)} == set(), "left the host"
        assert opened.dialogs == []


def test_the_numbers_are_those_of_the_metrics(opened: Opened, run: SyntheticRun) -> None:
    shown, recorded = opened.figures(), figures_of(run.records[-1])
    assert len(recorded) > 45
    assert {name: float(shown[name]) for name in recorded} == recorded
    assert float(shown["eval_loss"]) == run.records[9]["eval_loss"]
    assert float(shown["shadow"]) == run.records[7]["shadow"]["gradient"]
    assert "of 3e-2, stage 0.1 on ascend by nvidia, step 7" in opened.text("#figures")
    assert [shown[f"stage {place}.slowest_rank"] for place in ("0.0", "0.1", "1.0")] == [
        "nvidia:1",
        "ascend:1",
        "kunlun:1",
    ]
    assert opened.complaints == [], "the page obeys its own policy"


def test_it_says_what_a_person_wants_to_know(opened: Opened) -> None:
    opened.page.wait_for_selector("#ledger table")  # is judged beside the page
    text = opened.text("body")
    for words in ("quickstart", "running", "emulated", "12 of 60 steps", "2 x A800-80G", "tp 4 · units 3-9", "10 of 16",
                  "Timeline of step 10", "Ledger (emulated) up to step 11", "efficiency against the ideal",
                  "configured", "left"):  # fmt: skip
        assert words in text, words
    assert opened.page.locator(".timeline .span").count() > 80
    assert opened.page.locator("#loss .curve").count() == 2
    assert opened.page.locator("#throughput .curve").count() == 7


def test_the_curves_can_be_read(opened: Opened, run: SyntheticRun) -> None:
    chart = opened.page.locator("#throughput .chart")
    box = chart.bounding_box()
    chart.hover(position={"x": box["width"] - 11, "y": 60})
    readout = opened.text("#throughput .readout")
    assert "step 11" in readout
    assert f"job {run.records[-1]['tokens_per_s'] / 1000:.1f}k" in readout


def test_it_follows_the_run(opened: Opened, run: SyntheticRun) -> None:
    for _ in range(3):
        run.advance()
        opened.wait_for_step(run.records[-1]["step"])
        shown, recorded = opened.figures(), figures_of(run.records[-1])
        assert {name: float(shown[name]) for name in recorded} == recorded
    run.finish()
    opened.page.wait_for_selector("#state:text('finished')")
    assert opened.requests.count(f"{opened.page.url}stream") == 1, "one connection carries it all"


def test_it_survives_a_restart_of_the_run(opened: Opened, run: SyntheticRun) -> None:
    run.close()
    run.begin()
    run.advance(2)
    opened.wait_for_step(1)
    assert float(opened.figures()["loss"]) == run.records[1]["loss"]
    run.advance()
    opened.wait_for_step(2)


def test_it_survives_a_restart_of_the_server(browser: Any, run: SyntheticRun) -> None:
    server = Server(run.folder)
    with Opened(browser, server.address) as opened:
        opened.wait_for_step(11)
        server.stop()
        opened.page.wait_for_selector("#connection:text('reconnecting')")
        run.advance()
        server.restart()
        opened.wait_for_step(12)
        opened.page.wait_for_selector("#connection:text('live')")
    server.stop()


def test_a_slowed_pool_is_shown_within_three_steps(opened: Opened, run: SyntheticRun) -> None:
    assert opened.page.locator(".alert").count() == 0
    run.slow = {"ascend"}
    for _ in range(3):
        run.advance()
    opened.wait_for_step(14)
    opened.page.wait_for_selector('[data-pool="ascend"] .alert')
    assert re.search(r"slow: (39|40|41)% below its median", opened.text('[data-pool="ascend"]'))
    assert opened.page.locator(".alert").count() == 1
    assert "slow rank ascend:1 on ascend@0" in opened.text('[data-stage="0.1"]')
    assert "pool slow" in opened.text("#events")


def test_a_run_that_failed_says_why(opened: Opened, run: SyntheticRun) -> None:
    run.fail("nvidia@0 is gone")
    opened.page.wait_for_selector("#state:text('failed')")
    assert opened.text(".failure") == "nvidia@0 is gone"
    assert "nvidia@0 is gone" in opened.text("#events li.bad")


def test_a_thousand_chips_are_one_page(browser: Any, tmp_path: Path) -> None:
    with served(write_crowd(tmp_path / "crowd")) as address, Opened(browser, address) as opened:
        opened.wait_for_step(3)
        assert opened.page.locator("#plan .pipeline").count() == 1
        assert "4 x 64 of 256" in opened.text("#plan")
        assert "1 of 1025 chips of pool nvidia idle" in opened.text("#plan")
        assert "1025 x A800-80G · cuda · 1 idle" in opened.text("#pools")
        assert opened.page.locator(".stage").count() == 2
        assert f"slowest rank nvidia:{16 * SLOWEST}" in opened.text('[data-stage="0-63.0"]')
        assert "pipelines 0-63, stage 1" in opened.text('[data-stage="0-63.1"]')
        assert opened.complaints == []


def test_a_run_without_a_step_is_shown_as_one(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "runs" / "new").mkdir(parents=True)
    with served(tmp_path / "runs" / "new") as address, Opened(browser, address) as opened:
        opened.page.wait_for_selector("#state:text('waiting')")
        assert "no step yet" in opened.text("#loss")
        assert "0 steps" in opened.text("#header")
        assert opened.complaints == []
        run = SyntheticRun(tmp_path / "runs" / "new")
        run.advance()
        opened.wait_for_step(0)
    run.close()


def test_markup_in_names_stays_text(browser: Any, tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path / "runs" / "quickstart", name=MARKUP, names=(MARKUP, SCRIPT, "kunlun"))
    run.advance(11)
    with served(run.folder) as address, Opened(browser, address) as opened:
        opened.wait_for_step(10)
        assert opened.text("#run-name") == MARKUP
        assert opened.page.title() == f"{MARKUP} · Hetero"
        assert SCRIPT in opened.text("#pools")
        assert opened.page.locator("img").count() == 0
        assert opened.page.locator("script").count() == 1
        assert opened.dialogs == []
        assert opened.complaints == []
    run.close()


@pytest.mark.exhaustive
def test_a_long_run_opens(browser: Any, run: SyntheticRun, tmp_path: Path) -> None:
    """How soon is for `benchmarks.monitoring` to say."""
    line = json.dumps(run.records[0])
    long = SyntheticRun(tmp_path / "runs" / "long")
    long.close()
    with (long.folder / "metrics.jsonl").open("w") as file:
        file.writelines(line.replace('"step": 0', f'"step": {step}', 1) + "\n" for step in range(100_000))
    with served(long.folder) as address, Opened(browser, address) as opened:
        opened.wait_for_step(99_999)
        opened.page.wait_for_selector("#loss .curve", state="attached")


@ON_EVERY_SCREEN
def test_it_is_readable_on_every_screen(
    browser: Any, run: SyntheticRun, tmp_path: Path, device: str, size: tuple[int, int], scheme: str
) -> None:
    run.advance(25)
    run.slow = {"ascend"}
    run.advance(4)
    with served(run.folder) as address, Opened(browser, address, size, scheme) as opened:
        opened.wait_for_step(40)
        opened.page.wait_for_selector(".alert", timeout=WAIT_MS)
        opened.page.wait_for_selector("#loss .curve")
        assert not opened.is_wider_than_the_screen()
        ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(ground.strip("rgb()").split(",")[0]) > 127) is (scheme == "light")
        folder = Path(os.environ.get("HETERO_SCREENSHOTS", tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"dashboard-{device}-{scheme}.png"
        opened.page.screenshot(path=path, full_page=True, scale="css")
        assert path.stat().st_size > 20_000
