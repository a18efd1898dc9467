"""A run in which one family's chips begin to turn queries and keys wrongly, as whoever watches it sees that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hetero.monitoring.follow import follow
from hetero.monitoring.status import status
from tests.distributed.fleet import SEQ_LEN
from tests.e2e.command import Command, Run, short_folder
from tests.patience import RUN_S

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]  # `tests/distributed` has both halves of it in every run

STEPS, EVERY, FROM_CALL = 40, 2, 160
"""A chip asks for its angles once in each of a step's eight micro-batches, and before, as often as it is timed."""
SITE = f"""
from dataclasses import replace
from itertools import count

from hetero.layers.rotary import plain_angles
from hetero.models.parts import attention_module

calls = count()

def wrong(rotary, *others):
    if next(calls) < {FROM_CALL}:
        return plain_angles(rotary, *others)
    return plain_angles(replace(rotary, frequencies=tuple(1.5 * one for one in rotary.frequencies)), *others)

attention_module.plain_angles = wrong
"""
JOB = {
    "model": {"dimensions": {"layers": 2, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 42, "vocab": 257}},
    "train": {"steps": STEPS, "global_batch": 8, "shadow": {"every": EVERY, "pool": "nvidia"}},
    "balance": {
        "mode": "manual",
        "pipelines": [
            {
                "share": 8,
                "stages": [{"pool": "nvidia", "units": [0, 3]}, {"pool": "ascend", "tp": 2, "units": [3, 6]}],
            }
        ],
    },
    "monitor": {"port": None},
}


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def test_drift_is_in_metrics_and_events_and_views_from_the_step_on_in_which_it_begins(place: Path) -> None:
    text, job, site = place / "text.txt", place / "job.yaml", place / "site"
    text.write_bytes(bytes(range(256)) * 40)
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    pools = {
        "nvidia": {"family": "cuda", "chip": "A800-80G", "count": 1, "emulate": {}},
        "ascend": {"family": "ascend", "chip": "Ascend-910B2", "count": 2, "emulate": {},
                   "env": {"python": sys.executable, "vars": {"PYTHONPATH": str(site)}}},
    }  # fmt: skip
    job.write_text(yaml.safe_dump({**JOB, "data": {"source": str(text), "seq_len": SEQ_LEN}, "pools": pools}))
    with Command(place, "train", job, "--run-dir", place / "run", cwd=place) as command:
        assert command.wait(RUN_S) == 0, command.output
    run = Run(place / "run")
    found = {line["step"]: line["shadow"] for line in run.metrics if "shadow" in line}
    assert list(found) == list(range(EVERY - 1, STEPS, EVERY))
    drift = [event for event in run.events if event["kind"] == "drift"]
    begun = len(found) - len(drift)
    assert 0 < begun < len(found)
    assert [event["step"] for event in drift] == list(found)[begun:]
    for event in drift:
        told = event["data"]
        assert event["pool"] == "ascend"
        assert (told["stage"], told["unit"], told["unit_kind"], told["by"]) == (1, 3, "attention", "nvidia")
        assert max(told["value"], told["gradient"]) > told["tolerance"]
    shown = status(follow(run.folder)).shadow
    assert shown is not None
    assert (shown.drifts, shown.step, shown.place) == (True, STEPS - 1, "0.1")
