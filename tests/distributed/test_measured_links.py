"""A real link that the job says nothing of is measured on the way to the plan; the job is built in code."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

import hetero
from hetero.cluster.host.agent import LocalAgents
from hetero.job.planning import plan_job as planning
from hetero.job.planning.links import Probed
from hetero.monitoring.journal import EVENTS, read
from tests.distributed.fleet import ROOT

pytestmark = pytest.mark.slow


def _job(text: Path) -> dict[str, Any]:
    cpu = {"family": "cpu", "chip": "cpu", "count": 1, "env": {"vars": {"PYTHONPATH": str(ROOT)}}}
    dimensions = {"layers": 2, "hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 32, "vocab": 257}
    return {
        "model": {"dimensions": {"family": "llama", **dimensions}},
        "data": {"source": str(text), "seq_len": 16},
        "train": {"steps": 1, "global_batch": 4},
        "pools": {"a": cpu, "b": cpu},
        "bridge": {"transport": "zmq"},
        "checkpoint": {"every": 0},
    }


def test_a_measured_link_reaches_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(i * i // 5 % 256 for i in range(5_000)))
    searched: list[Any] = []
    search = planning.search
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(planning, "search", lambda problem: searched.append(problem.topology) or search(problem))
    monkeypatch.setattr("hetero.training.ray_runtime", lambda address: contextlib.nullcontext())
    monkeypatch.setattr("hetero.training.ray_agents", lambda *_: contextlib.nullcontext(LocalAgents()))
    lines: list[Any] = []
    events: list[Any] = []
    summary = hetero.train(_job(text), tmp_path / "run", on_step=lines.append, on_event=events.append)
    assert [line["step"] for line in lines] == [0]
    assert summary.last == lines[0]
    assert events == list(read(tmp_path / "run" / EVENTS))
    (planned,) = [event for event in read(tmp_path / "run" / EVENTS) if event["kind"] == "planned"]
    rows = planned["data"]["probed"]
    assert [(row["source"], row["target"]) for row in rows] == [("a", "b"), ("b", "a")]
    assert all(row["bytes_per_s"] > 1e6 and row["rtt_s"] > 0 and row["cpu_s_per_gb"] > 0 for row in rows)
    assumed, measured = (chips.link("a", "b") for chips in (searched[0], searched[-1]))
    assert (measured.bytes_per_s, 2 * measured.latency_s) == pytest.approx(Probed(rows).figures("a", "b"))
    assert measured.bytes_per_s != assumed.bytes_per_s
