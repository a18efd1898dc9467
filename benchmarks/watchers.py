"""Everything that watches a run, all at once: what `hetero train` does for those who look on, and they themselves."""

from __future__ import annotations

import io
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from backends import core_schema
from hetero.cluster.options import named_pools
from hetero.job.job import Job
from hetero.job.planning.plan_job import Planned
from hetero.job.run.facts import run_facts, tracked_run
from hetero.job.run.live_page import dashboard
from hetero.monitoring.journal import EVENTS, METRICS, EventJournal, Journal
from hetero.monitoring.monitor import Monitor
from hetero.monitoring.notice import Notice
from hetero.monitoring.options import MonitorOptions
from hetero.monitoring.progress import Progress
from hetero.monitoring.record import Recorder
from hetero.monitoring.trace import Trace
from hetero.words.step import HostStep

TRACKERS = ("tensorboard", "wandb", "mlflow")
SCRAPE_S = 5.0
READY_S = 60.0

Record = dict[str, Any]
HostReports = Sequence[HostStep]


class Watchers:
    """Journals, trace, alerts, screen, a dashboard with a page open, an endpoint that is scraped, and three trackers.

    Takes what `on_report` of a session is told, as the driver of a run does. Open inside `with`, and ready by then.
    """

    def __init__(self, job: Job, planned: Planned, time_scale: float, run_dir: Path) -> None:
        self._job, self._planned, self._run_dir = job, planned, run_dir
        self._recorder = Recorder(run_facts(job, planned, time_scale, time.time()))
        self._stack = ExitStack()

    def __enter__(self) -> Watchers:
        with self._stack:
            self._open(self._stack.enter_context)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def report(self, hosts: HostReports) -> None:
        """One step."""
        for host in hosts:
            self._trace.add(host)
        line = self._recorder.line(hosts)
        self._metrics.append(line)
        self._note(self._watch.record(line))
        self._progress.record(line)

    def _open(self, enter: Callable[[Any], Any]) -> None:
        options = MonitorOptions.model_validate({"trackers": TRACKERS, "prometheus_port": "auto"})
        self._run_dir.mkdir(parents=True)
        (self._run_dir / "job.yaml").write_text(core_schema.dump(self._job.resolved()))
        (self._run_dir / "plan.json").write_text(self._planned.plan.to_json())
        self._metrics, self._events = (
            enter(Journal(self._run_dir / METRICS)),
            enter(EventJournal(self._run_dir / EVENTS)),
        )
        self._trace = Trace(self._run_dir / "trace.json")
        self._stack.callback(self._trace.close)
        screen = Console(file=io.StringIO(), force_terminal=True, width=120)
        self._progress = enter(Progress(self._job.train.steps, named_pools(self._job.pools).values(), screen))
        self._watch = Monitor(options, tracked_run(self._job, self._run_dir))
        self._stack.callback(self._watch.close)
        notices = self._watch.start()
        self._note(notices)
        page = enter(dashboard(self._run_dir, "auto"))
        enter(_repeating(lambda: _get(notices[0].facts["url"]), SCRAPE_S))
        enter(_page_open(page))
        _wait_until(lambda: all(any((self._run_dir / name).rglob("*")) for name in TRACKERS))

    def _note(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            event = self._events.write(notice.kind, **notice.facts)
            self._watch.event(event)
            self._progress.event(event)


@contextmanager
def _repeating(act: Callable[[], None], every_s: float) -> Iterator[None]:
    """Acts now and then, in a thread of its own."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            act()
            ended.wait(every_s)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _page_open(address: str) -> Iterator[None]:
    """Reads what the page reads, as it comes, until the server ends."""

    def read() -> None:
        with urllib.request.urlopen(f"{address}stream") as stream:
            while stream.readline():
                pass

    _wait_until(lambda: _answers(address))
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=READY_S) as answer:
        answer.read()


def _answers(url: str) -> bool:
    try:
        _get(url)
    except OSError:
        return False
    return True


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError("those who watch were not ready in time")
        time.sleep(0.1)
