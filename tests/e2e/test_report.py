"""The page of `hetero report` in a real browser: it draws, asks for nothing, and runs nothing that a name holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hetero.cli.app import run
from hetero.monitoring.trace import Trace
from tests.e2e.browser import ON_EVERY_SCREEN, Opened, chromium
from tests.unit.hetero.monitoring.crowd import write_crowd
from tests.unit.hetero.monitoring.reports import traced
from tests.unit.hetero.monitoring.synthetic import metrics_line, write_run

MARKUP = '<img src="x" onerror="alert(1)"><a href="alert">b</a>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def _page(run_dir: Path, **named: Any) -> str:
    """The address of the page of a run."""
    write_run(run_dir, steps=40, finished=True, **named)
    trace = Trace(run_dir / "trace.json")
    for pool in (*(named.get("pool_names") or {}).values(), "ascend", "kunlun"):
        spans = ("F 0.0", 10.0, 0.2), ("wait activation 0.0", 10.2, 0.1), ("B 0.0", 10.3, 0.4), ("STEP", 10.8, 0.1)
        trace.add(traced(pool, 39, [spans, spans]))
    trace.close()
    assert run(["report", str(run_dir)]) == 0
    return (run_dir / "report.html").as_uri()


def _drawn(opened: Opened) -> int:
    opened.page.wait_for_selector(".chart .main-svg")
    return int(opened.page.locator(".chart:has(.main-svg)").count())


def test_it_draws_and_asks_for_nothing(browser: Any, tmp_path: Path) -> None:
    address = _page(tmp_path)
    with Opened(browser, address) as opened:
        assert _drawn(opened) == opened.page.locator(".chart").count() == 5
        assert f"{metrics_line(39)['loss']:.4f}" in opened.text("main")
        drawn = opened.page.evaluate("document.querySelector('.chart').data[0].y.at(-1)")
        assert drawn == metrics_line(39)["loss"]
        assert [url for url in opened.requests if url != address and not url.startswith("data:")] == []
        assert opened.complaints == [], "the page obeys its own policy"


@pytest.mark.exhaustive
def test_a_thousand_chips_are_one_page(browser: Any, tmp_path: Path) -> None:
    assert run(["report", str(write_crowd(tmp_path))]) == 0
    with Opened(browser, (tmp_path / "report.html").as_uri()) as opened:
        text = opened.text("main")
        assert opened.page.locator(".pipeline").count() == 1
        assert "pipelines 0-63 (x 64): 4 sequences a step each, 2 at a time" in text
        assert "1 of 1025 chips of pool nvidia idle" in text
        assert "1025 x A800-80G, 1 idle" in text
        assert [row.split()[0] for row in text.splitlines() if row.startswith("0-63.")] == ["0-63.0", "0-63.1"]


@pytest.mark.exhaustive
def test_markup_in_names_stays_text(browser: Any, tmp_path: Path) -> None:
    with Opened(browser, _page(tmp_path, name=MARKUP, pool_names={"nvidia": MARKUP})) as opened:
        _drawn(opened)
        assert opened.text("h1") == MARKUP
        assert MARKUP in opened.page.locator(".legendtext").all_text_contents()
        assert MARKUP in "".join(opened.page.locator(".ytick").all_text_contents())
        assert opened.page.locator("img").count() == 0
        assert opened.page.locator("a[*|href*='alert']").count() == 0
        assert opened.dialogs == []


@ON_EVERY_SCREEN
def test_it_is_readable_on_every_screen(
    browser: Any, tmp_path: Path, device: str, size: tuple[int, int], scheme: str
) -> None:
    with Opened(browser, _page(tmp_path / "run"), size, scheme) as opened:
        _drawn(opened)
        assert not opened.is_wider_than_the_screen()
        for paint, is_light in (("backgroundColor", scheme == "light"), ("color", scheme == "dark")):
            color = opened.page.evaluate(f"getComputedStyle(document.body).{paint}")
            assert (int(color.strip("rgb()").split(",")[0]) > 127) is is_light
        path = Path(os.environ.get("HETERO_SCREENSHOTS", tmp_path)) / f"report-{device}-{scheme}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        opened.page.screenshot(path=path, full_page=True, scale="css" if device == "desktop" else "device")
        assert path.stat().st_size > 20_000
