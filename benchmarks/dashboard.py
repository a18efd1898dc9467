"""How long a page with 100,000 steps takes to open."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.e2e.browser import CHROMIUM, Opened, Server, chromium
from tests.unit.hetero.monitoring.dashboard.runs import SyntheticRun

STEPS = 100_000
TIMES = 3


def opening_s() -> dict[str, float]:
    """Seconds from asking for the page until its curves are drawn: on a server that has just been started, and on one
    that has read the run. Nothing where there is no Chromium."""
    if not Path(CHROMIUM).exists():
        return {}
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        run_dir = _long_run(Path(folder) / "runs" / "long")
        first, again = zip(*(_opened(browser, run_dir) for _ in range(TIMES)), strict=True)
    return {"dashboard_open_100k_s": median(first), "dashboard_reopen_100k_s": median(again)}


def _opened(browser: Any, run_dir: Path) -> tuple[float, float]:
    server = Server(run_dir)
    try:
        return _page_s(browser, server.address), _page_s(browser, server.address)
    finally:
        server.stop()


def _page_s(browser: Any, address: str) -> float:
    began = time.perf_counter()
    with Opened(browser, address) as opened:
        opened.wait_for_step(STEPS - 1)
        opened.page.wait_for_selector("#loss .curve", state="attached")
        return time.perf_counter() - began


def _long_run(folder: Path) -> Path:
    run = SyntheticRun(folder)
    line = json.dumps(run.advance())
    run.close()
    with (folder / "metrics.jsonl").open("w") as file:
        file.writelines(line.replace('"step": 0', f'"step": {step}', 1) + "\n" for step in range(STEPS))
    return folder
