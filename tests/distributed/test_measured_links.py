"""A real link that the job file says nothing of is measured on the way to the plan; what it says of one is believed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from hetero.cluster.agent import LocalAgents
from hetero.cluster.session import Session
from hetero.job import planning
from hetero.job.job import Job
from hetero.job.links import Probed
from hetero.monitoring.journal import EVENTS, read
from hetero.train import train
from tests.distributed.fleet import ROOT

pytestmark = pytest.mark.slow


def _job(text: Path) -> Job:
    pools = {name: {"family": "cpu", "chip": "cpu", "count": 1, "env": {"vars": {"PYTHONPATH": str(ROOT)}}}
             for name in ("a", "b", "c")}  # fmt: skip
    dimensions = {"layers": 2, "hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 32, "vocab": 257}
    said = {"between": ["a", "c"], "gbit_per_s": 8, "rtt_ms": 1}
    return Job.model_validate(
        {
            "model": {"dimensions": {"family": "llama", **dimensions}},
            "data": {"source": str(text), "seq_len": 16},
            "train": {"steps": 1, "global_batch": 4},
            "pools": pools,
            "bridge": {"transport": "zmq", "links": [said]},
            "checkpoint": {"every": 0},
        }
    )


def test_measured_links_reach_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of one job, of which the second finds what the first has measured."""
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(i * i // 5 % 256 for i in range(5_000)))
    asked: list[Any] = []
    topologies: list[Any] = []
    probe, search = Session.probe, planning.search
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Session, "probe", lambda self, links: asked.append(links) or probe(self, links))
    monkeypatch.setattr(planning, "search", lambda *a, **k: topologies.append(a[0]) or search(*a, **k))
    monkeypatch.setattr("hetero.train.ray_runtime", lambda address: contextlib.nullcontext())
    monkeypatch.setattr("hetero.train.ray_agents", lambda *_: contextlib.nullcontext(LocalAgents()))
    rows = []
    for name in ("first", "second"):
        train(_job(text), tmp_path / name)
        (planned,) = [event for event in read(tmp_path / name / EVENTS) if event["kind"] == "planned"]
        rows.append(planned["data"]["probed"])
    assert asked == [[("a", "b")], [("b", "c")]]
    assert rows[0] == rows[1]
    assert [(row["source"], row["target"]) for row in rows[0]] == [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")]
    assert all(row["bytes_per_s"] > 1e6 and row["rtt_s"] > 0 and row["cpu_s_per_gb"] > 0 for row in rows[0])
    for one, other in (("a", "b"), ("b", "c")):
        link = topologies[-1].link(one, other)
        assert (link.bytes_per_s, 2 * link.latency_s) == pytest.approx(Probed(rows[0]).figures(one, other))
    assert topologies[-1].link("a", "c").bytes_per_s == 1e9
