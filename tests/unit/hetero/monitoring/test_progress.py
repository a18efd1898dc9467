from __future__ import annotations

import io
import time
from dataclasses import replace
from unittest import mock

import pytest
from rich.console import Console

from backends.options import EmulateOptions
from hetero.monitoring.journal import Record
from hetero.monitoring.progress import SECONDS_BETWEEN_VIEWS, Progress
from hetero.monitoring.record import merge_hosts
from hetero.monitoring.table import pool_tables
from hetero.words.pool import Pool
from tests.unit.hetero.monitoring.reports import POOLS, TOTALS, facts, merged, rank_report

LARGE = Pool("a", "ascend", "Ascend-910B2", 128, emulate=EmulateOptions())


def _record(step: int, **changes: object) -> Record:
    a = merged([rank_report("a", 0, step=step, totals=TOTALS), rank_report("a", 1, step=step)])
    b = merged([rank_report("b", 0, step=step)])
    return merge_hosts([a, b], facts(link_ratio=0.25)) | changes


def _shown(terminal: bool, records: list[Record], clock: float = 0.0) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    with Progress(len(records), POOLS.values(), console, clock=lambda: clock) as progress:
        progress.event({"kind": "calibrated", "data": {"seconds": 1.5}})
        for record in records:
            progress.record(record)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_lines_come_now_and_then() -> None:
    text = _shown(False, [_record(step) for step in range(50)])
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["1/50", "50/50"], "time stands still, so only first and last"
    assert lines[0] == "step 1/50  loss 5.0000  1,000 tok/s  0:49 left  emulated"
    assert text.startswith("calibrated seconds 1.5")


def test_in_a_terminal_a_warning_stays() -> None:
    """Other events are drawn over by the next."""
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    assert isinstance(console.file, io.StringIO)
    with Progress(1, POOLS.values(), console) as progress:
        for kind in ("warning", "measuring"):
            progress.event({"kind": kind, "data": {"note": "[something] is left out"}})
            assert console.file.getvalue().count("[something] is left out\n") == 1


def test_in_a_terminal_each_pool_has_a_line() -> None:
    text = _shown(True, [_record(step) for step in range(3)])
    for expected in ("a (2 x A, emulated)", "b (1 x B, emulated)", "bridge wait 10.0%", "bubble 10.0%", "busy 70.0%"):
        assert expected in text


def test_a_terminal_is_drawn_anew_only_for_what_is_new() -> None:
    """Steps that follow each other faster than an eye does share a view; nothing is drawn without a step."""
    now = [0.0]
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    assert isinstance(console.file, io.StringIO)
    with Progress(100, POOLS.values(), console, clock=lambda: now[0]) as progress:
        for step in range(50):
            progress.record(_record(step))
            now[0] += SECONDS_BETWEEN_VIEWS / 10
        drawn = console.file.getvalue()
        time.sleep(0.4)
        assert console.file.getvalue() == drawn
    assert drawn.count("bridge wait") == 2 * 5, "each view has two pools"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_end_is_a_table_labelled_emulated(terminal: bool) -> None:
    text = _shown(terminal, [_record(step, overrun=step == 2) for step in range(4)])
    assert "emulated chips: modelled figures, not measurements of hardware" in text
    assert "link_ratio 0.25; overruns in 1 of 3 steps" in text
    assert "2 x A" in text


def test_the_table_is_whole_in_80_columns() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(*pool_tables([_record(0)], [LARGE]))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    for word in ("capacity", "TFLOP/s", "bubble", "bridge", "other", "peak", "128 x Ascend-910B2", "70.0%"):
        assert word in text, word


def test_a_file_is_not_as_narrow_as_a_small_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    with Progress(1, [LARGE]) as progress:
        progress.record(_record(0))
    assert "128 x Ascend-910B2" in out.getvalue()


def test_emulated_and_real_pools_share_no_table() -> None:
    mixed = [POOLS["a"], replace(POOLS["b"], emulate=None)]
    tables = pool_tables([_record(0)], mixed)
    assert [table.row_count for table in tables] == [1, 1]
    assert [str(table.title).startswith("emulated") for table in tables] == [False, True]


def test_a_run_that_made_no_step_shows_no_table() -> None:
    assert "MFU" not in _shown(False, [])


def test_a_loss_that_is_not_finite_is_said_so() -> None:
    assert "loss not finite" in _shown(False, [_record(0, loss=None)])


def test_a_warning_stays_on_a_terminal() -> None:
    """The view is wiped off when the run ends; what is printed above it is not."""
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    printing = mock.patch.object(console, "print", wraps=console.print)
    with printing as printed, Progress(2, POOLS.values(), console) as progress:
        for kind in ("warning", "updates_skipped", "calibrated"):
            progress.event({"kind": kind, "data": {"note": "n"}})
        lines = [call.args[0] for call in printed.call_args_list if isinstance(call.args[0], str)]
    assert lines == ["warning note n", "updates skipped note n"]
