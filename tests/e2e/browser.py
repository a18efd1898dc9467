"""A real browser on the dashboard: Debian's Chromium, driven by Playwright, without a word to the outside."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hetero.job.judged import ledger_table
from hetero.monitoring.dashboard.address import listen, url
from hetero.monitoring.dashboard.server import serve
from hetero.monitoring.journal import Record
from tests.patience import WAIT_S

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-default-apps", "--disable-extensions", "--disable-sync", "--disable-domain-reliability",
    "--disable-features=OptimizationHints,MediaRouter,Translate", "--no-first-run", "--no-pings",
    "--metrics-recording-only", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
DESKTOP, PHONE = (1280, 900), (390, 844)
ON_EVERY_SCREEN = pytest.mark.parametrize(
    ("device", "size", "scheme"),
    [
        ("desktop", DESKTOP, "light"),
        ("phone", PHONE, "dark"),
        pytest.param("desktop", DESKTOP, "dark", marks=pytest.mark.exhaustive),
        pytest.param("phone", PHONE, "light", marks=pytest.mark.exhaustive),
    ],
)
WAIT_MS = 1000 * WAIT_S


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser with a profile of its own, gone afterwards. Skips where it is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip("no chromium on this machine: apt-get install chromium, or name it in CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


class Opened:
    """A page, and all that it asked for, complained of or popped up."""

    def __init__(self, browser: Any, address: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, device_scale_factor=2
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.goto(address)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def wait_for_step(self, step: int) -> None:
        self.page.wait_for_selector(f'data[data-figure="step"][value="{step}"]')

    def figures(self) -> dict[str, str]:
        """Every figure on the page by name, as the number behind what is shown."""
        script = "all => all.map(one => [one.dataset.figure, one.value ?? one.textContent])"
        return dict(self.page.eval_on_selector_all("[data-figure]", script))

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def is_wider_than_the_screen(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


class Server:
    """`hetero dashboard` as a user runs it, from the folder that holds `runs/`. `restart` serves on the same port."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._process = self._start()
        self.address = self._said().partition(" on ")[2].partition(" (")[0]

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(WAIT_S) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()

    def restart(self) -> None:
        port = self.address.rstrip("/").rpartition(":")[2]
        self._process = self._start("--port", port)
        assert self.address in self._said()

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        script = Path(sys.executable).with_name("hetero")
        base = self._run_dir.parent.parent
        command = [script, "dashboard", self._run_dir.relative_to(base), *arguments]
        return subprocess.Popen(command, cwd=base, stdout=subprocess.PIPE, text=True)

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def served(run_dir: Path) -> Iterator[str]:
    """The address of a run's page, from a thread: the server without the seconds that its process takes to start."""
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    with listen("127.0.0.1", "auto", key="--port") as listener, ThreadPoolExecutor(1) as thread:
        serving = thread.submit(loop.run_until_complete, serve(run_dir, listener, stop, ledger_table, local_only=True))
        try:
            yield url(listener)
        finally:
            loop.call_soon_threadsafe(stop.set)
            serving.result(WAIT_S)
            loop.close()


def figures_of(record: Record) -> dict[str, float]:
    """What the page must show of a line of `metrics.jsonl`, by the names of its figures."""
    alone = ("step", "loss", "tokens_per_s", "step_s", "goodput", "grad_norm", "lr")
    shown = {key: record[key] for key in alone}
    for name, pool in record["pools"].items():
        shown |= {f"{name}.{key}": value for key, value in pool.items()}
    for link in record["links"]:
        name = f"link {link['source']} {link['target']}"
        shown |= {f"{name}.{key}": link[key] for key in ("bytes_sent", "bytes_per_s", "exposed_s")}
    for stage in record["stages"]:
        place = f"stage {stage['pipeline']}.{stage['stage']}"
        shown |= {f"{place}.{key}": stage[key] for key in ("forward_s", "backward_s", "wait_s")}
    return shown
