"""`hetero train configs/runs/quickstart.yaml` once: what it shows and leaves is checked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

import pytest

from balancer.plan.plan import Plan
from hetero.data.corpus import Corpus
from hetero.job.file.load import load_job
from hetero.job.job import Job
from tests.distributed.laws import TOLERANCES, series_deviation
from tests.distributed.plain import plain_steps
from tests.e2e.command import ROOT, Command, Run, short_folder
from tests.patience import RUN_S, WAIT_S
from tests.unit.hetero.monitoring.chrome_trace import read_trace

JOB = ROOT / "configs/runs/quickstart.yaml"
POOLS = ("nvidia", "ascend", "kunlun")
SETTINGS = (
    "time_scale=1",
    "data.seq_len=64",
    "train.steps=24",
    "train.optimizer.lr=3.0e-3",
    "monitor.trackers=[wandb]",
)
"""At the pace of the machine, whatever that is, a sixth of the work, learning a little faster, and watched by a tracker
that has a process of its own; how well an emulated pace is kept is for runs and benchmarks to say."""
BESIDE_PLAIN = 8
"""Steps that a plain process trains too."""

LINE = {
    "step", "time", "epoch", "loss", "grad_norm", "lr", "loss_scale", "skipped", "tokens", "consumed_tokens",
    "counted_tokens", "step_s",
    "tokens_per_s", "goodput", "emulated", "overrun", "link_ratio", "pools", "links", "stages",
}  # fmt: skip
POOL = {
    "capacity_tokens_per_s", "tokens_per_s", "tflops_per_chip", "mfu", "busy", "optimizer", "bubble",
    "bridge_wait", "other", "data_wait", "bytes_sent", "bytes_received", "peak_memory_bytes",
}  # fmt: skip
LINK = {"source", "target", "bytes_sent", "bytes_received", "bytes_per_s", "exposed_s"}
STAGE = {"pipeline", "stage", "pool", "forward_s", "backward_s", "weight_s", "wait_s", "slowest_rank", "host"}


@dataclass(frozen=True)
class Finished:
    run: Run
    job: Job
    exit_code: int
    screen: str
    left: list[str]

    @property
    def plan(self) -> Plan:
        return Plan.from_json((self.run.folder / "plan.json").read_text())

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.run.metrics]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def finished(place: Path) -> Finished:
    run = Run(place / "run")
    arguments = [part for setting in SETTINGS for part in ("--set", setting)]
    with Command(place, "train", JOB, *arguments, "--run-dir", run.folder) as command:
        exit_code = command.wait(RUN_S)
        return Finished(run, load_job(JOB, SETTINGS), exit_code, command.output, command.footprint.left())


def test_it_ends_well_and_leaves_nothing(finished: Finished) -> None:
    assert finished.exit_code == 0, finished.screen
    assert finished.left == []
    assert [line["step"] for line in finished.run.metrics] == list(range(finished.job.train.steps))


def test_its_tracker_has_ended_in_good_order(finished: Finished) -> None:
    assert "Traceback" not in finished.screen
    assert list(finished.run.folder.glob("wandb/offline-run-*/*.wandb"))


def test_it_learns(finished: Finished) -> None:
    first, last_five = finished.losses[0], finished.losses[-5:]
    assert first == pytest.approx(math.log(finished.job.model.resolve().vocab), rel=0.03)
    assert sum(last_five) / 5 < min(3.05, _unigram_entropy(finished.job.data.source))


def _unigram_entropy(source: str) -> float:
    """Nats per byte of the text: what a model would lose that knows nothing but how often each byte occurs."""
    counts: Counter[int] = Counter()
    for piece in chain.from_iterable(Corpus.of(source).documents()):
        counts.update(piece)
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())


def test_it_trains_as_one_plain_process(finished: Finished, place: Path) -> None:
    """Law 2 with nothing in place of the real thing but the chips: Ray, all three families, shares of 6 and 8."""
    plain = plain_steps(finished.run.folder / "job.yaml", place / "plain", BESIDE_PLAIN)
    lines, limit = finished.run.metrics[:BESIDE_PLAIN], TOLERANCES["float32"]
    loss = series_deviation([line["loss"] for line in lines], [step.loss for step in plain])
    norm = series_deviation([line["grad_norm"] for line in lines], [step.norm for step in plain])
    assert loss.deviation <= limit.loss, loss
    assert norm.deviation <= limit.norm, norm


def test_every_line_of_metrics_is_whole(finished: Finished) -> None:
    batch_tokens = finished.job.train.global_batch * finished.job.data.seq_len
    for line in finished.run.metrics:
        assert set(line) == LINE
        assert set(line["pools"]) == set(POOLS)
        assert all(set(pool) == POOL for pool in line["pools"].values())
        assert all(set(link) == LINK for link in line["links"])
        assert all(set(stage) == STAGE for stage in line["stages"])
        assert line["emulated"] is True
        assert line["link_ratio"] > 0
        assert line["loss_scale"] == 1.0, "of float32"
        assert line["tokens"] == batch_tokens
        assert line["consumed_tokens"] == (line["step"] + 1) * batch_tokens


def test_the_pools_add_up_to_the_job(finished: Finished) -> None:
    for line in finished.run.metrics:
        pools = line["pools"].values()
        assert sum(pool["tokens_per_s"] for pool in pools) == pytest.approx(line["tokens_per_s"])
        for pool in pools:
            assert sum(pool[part] for part in ("busy", "bubble", "bridge_wait", "other")) == pytest.approx(1.0)
            assert 0 <= pool["data_wait"] <= pool["other"]
            assert pool["capacity_tokens_per_s"] == pytest.approx(pool["tokens_per_s"] / pool["busy"])
        assert {(stage["pool"], stage["host"]) for stage in line["stages"]} == {(pool, f"{pool}@0") for pool in POOLS}


def test_steps_do_not_wait_for_their_samples(finished: Finished) -> None:
    """At the machine's own pace and with short samples, where reading is most of a step."""
    for name in POOLS:
        waits = [line["pools"][name]["data_wait"] for line in finished.run.metrics]
        assert 0 < median(waits) < 0.01, name


def test_overruns_are_told(finished: Finished) -> None:
    overruns = [line["step"] for line in finished.run.metrics[1:] if line["overrun"]]
    assert f"overruns in {len(overruns)} of {len(finished.run.metrics) - 1} steps" in finished.screen


def test_the_table_at_the_end_is_labelled(finished: Finished) -> None:
    title, found, table = finished.screen.rpartition("emulated chips: modelled figures, not measurements of hardware")
    assert found, finished.screen
    for word in (*POOLS, "2 x A800-80G", "4 x Ascend-910B2", "2 x Kunlun-P800", "MFU", "capacity", "bubble"):
        assert word in table, table
    assert "…" not in table
    assert "loss" in title
    assert f"recorded in {finished.run.folder}" in table


def test_the_plan_is_uneven(finished: Finished) -> None:
    plan = finished.plan
    assert len({pipeline.share for pipeline in plan.pipelines}) == len(plan.pipelines) > 1
    lengths = [
        [stop - start for stage in pipeline.stages for start, stop in stage.units] for pipeline in plan.pipelines
    ]
    assert any(len(set(units)) > 1 for units in lengths)
    assert {stage.pool: stage.tp for pipeline in plan.pipelines for stage in pipeline.stages} == {
        "nvidia": 2, "ascend": 4, "kunlun": 1,
    }  # fmt: skip


def test_both_transports_carry(finished: Finished) -> None:
    assert {link.transport for link in finished.job.bridge.links} == {"zmq", "grpc"}
    for line in finished.run.metrics:
        assert all(pool["bytes_sent"] > 0 and pool["bytes_received"] > 0 for pool in line["pools"].values())
        assert all(link["bytes_sent"] > 0 and link["bytes_received"] > 0 for link in line["links"])


def test_what_is_sent_comes_in_by_the_next_step(finished: Finished) -> None:
    """Parameters of one step may come back in the next one."""
    links = [{(link["source"], link["target"]): link for link in line["links"]} for line in finished.run.metrics]
    for ends in links[0]:
        sent, received = ([line[ends][f"bytes_{way}"] for line in links] for way in ("sent", "received"))
        late = sum(sent) - sum(received)
        assert 0 <= late <= sent[-1] - received[0]


def test_the_trace_has_a_row_for_every_rank(finished: Finished) -> None:
    rows = read_trace((finished.run.folder / "trace.json").read_text())
    ranks = [(name, index) for name, pool in finished.job.pools.items() for index in range(pool.count)]
    assert sorted(row for _, row in rows) == sorted(f"{name}:{index} on {name}@0" for name, index in ranks)
    for slices in rows.values():
        assert {one.name.partition(" ")[0] for one in slices} == {"F", "B", "SYNC", "STEP", "wait"}


def test_the_events_are_gapless(finished: Finished) -> None:
    events = finished.run.events
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert all(set(event) == {"seq", "time", "step", "epoch", "kind", "pool", "rank", "data"} for event in events)
    kinds = [event["kind"] for event in events]
    assert kinds[:4] == ["started"] + ["host_ready"] * 3
    for event in events[:4]:
        assert {"os", "python", "torch"} <= set(event["data"]["software"])
    assert events[0]["data"]["software"]["ray"]
    assert kinds[-1] == "finished"


def test_the_recorded_job_is_the_job(finished: Finished) -> None:
    assert load_job(finished.run.folder / "job.yaml") == finished.job


def test_all_of_the_run_is_its_users_alone(finished: Finished) -> None:
    """What ranks and tools wrote too."""
    folder = finished.run.folder
    open_to_others = [path for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077]
    assert [path for path in open_to_others if not path.is_symlink()] == []


def test_no_run_overwrites_another(finished: Finished, place: Path) -> None:
    before = (finished.run.folder / "metrics.jsonl").read_bytes()
    with Command(place, "train", JOB, "--run-dir", finished.run.folder) as command:
        assert command.wait(WAIT_S) == 2
    _is_one_screen(command.output)
    assert "--run-dir" in command.output
    assert "holds a run already" in command.output
    assert (finished.run.folder / "metrics.jsonl").read_bytes() == before


def test_a_mistake_in_the_job_file_is_explained(place: Path) -> None:
    lines = JOB.read_text().splitlines()
    line = next(number for number, text in enumerate(lines) if "Ascend-910B2" in text)
    lines[line] = lines[line].replace("Ascend-910B2", "Ascend-910B22")
    (place / "wrong.yaml").write_text("\n".join(lines))
    with Command(place, "train", place / "wrong.yaml", "--run-dir", place / "never") as command:
        assert command.wait(WAIT_S) == 2
    _is_one_screen(command.output)
    for part in (f"wrong.yaml:{line + 1}", "pools.ascend.chip", "Ascend-910B22", "Did you mean Ascend-910B2?"):
        assert part in command.output, command.output
    for part in ("value", "rule", "remedy"):
        assert f"  {part}" in command.output, command.output
    assert not (place / "never").exists()


def _is_one_screen(text: str) -> None:
    assert "Traceback" not in text, text
    assert 0 < len(text.splitlines()) <= 20, text
