"""Every tracker holds the same curves as `metrics.jsonl`; read back by the tool's own reader, none needs torch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hetero.monitoring.errors import MonitorError
from hetero.monitoring.journal import METRICS, Journal, read
from hetero.monitoring.monitor import Monitor
from hetero.monitoring.options import MonitorOptions
from hetero.monitoring.tracker import BUILT_IN, curves, load_tracker
from tests.architecture.tree import ROOT
from tests.contract.wandb_file import records
from tests.patience import RUN_S, WAIT_S
from tests.unit.hetero.monitoring.runs import line, tracked

Curves = dict[int, dict[str, float]]

STEPS = 30


def _read_tensorboard(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    found: Curves = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found.setdefault(event.step, {})[name] = event.value
            assert event.wall_time == line(event.step)["time"]
    return found


def _read_wandb(folder: Path) -> Curves:
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    found: Curves = {}
    for data in records(path):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            step = int(items["_step"])
            assert items["time"] == line(step)["time"]
            found[step] = {key: value for key, value in items.items() if key[0] != "_" and key != "time"}
    return found


def _read_mlflow(folder: Path) -> Curves:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("small")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.tags["emulated"]) == (folder.name, "FINISHED", "true")
    found: Curves = {}
    for name in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, name):
            found.setdefault(metric.step, {})[name] = metric.value
    return found


READERS: dict[str, Callable[[Path], Curves]] = {
    "tensorboard": _read_tensorboard,
    "wandb": _read_wandb,
    "mlflow": _read_mlflow,
}


def _needs(tracker: str) -> None:
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed: pip install 'hetero[{tracker}]'")


def test_every_tracker_is_read_back() -> None:
    assert set(READERS) == set(BUILT_IN)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_curves_equal_those_of_the_journal(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _needs(name)
    monkeypatch.setattr("hetero.monitoring.monitor.SECONDS_TO_CLOSE", WAIT_S)  # of which a busy machine may need some
    run = tracked(tmp_path / "small-run")
    run.folder.mkdir()
    monitor = Monitor(MonitorOptions.model_validate({"trackers": [name]}), run)
    notices = monitor.start()
    with Journal(run.folder / METRICS) as journal:
        for step in range(STEPS):
            record = line(step, loss=float("nan") if step == 2 else 5.0 - 0.1 * step)
            journal.append(record)
            notices += monitor.record(record)
    notices += monitor.close()
    assert notices == []
    written = {record["step"]: curves(record, run) for record in read(run.folder / METRICS)}
    assert "loss" not in written[2]
    found = READERS[name](run.folder)
    until = time.monotonic() + WAIT_S
    while set(found) != set(range(STEPS)) and time.monotonic() < until:  # a tool's own process may write a little later
        time.sleep(0.2)
        found = READERS[name](run.folder)
    assert set(found) == set(range(STEPS))
    for step, values in written.items():
        assert found[step] == pytest.approx(values, rel=1e-6), "event files hold float32"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_tracker_is_torch_free(name: str) -> None:
    _needs(name)
    script = f"""
import sys
from hetero.monitoring.tracker import load_tracker
assert not {set(BUILT_IN)!r} & set(sys.modules), "imported before it is used"
load_tracker({name!r})
assert {name!r} in sys.modules
assert not {{"torch", "ray"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=RUN_S)


@pytest.mark.slow
def test_wandb_online_wants_a_key_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _needs("wandb")
    online = {"trackers": [{"name": "wandb", "options": {"mode": "online"}}]}
    for name, value in {"HOME": tmp_path, "NETRC": tmp_path / "netrc", "WANDB_CONFIG_DIR": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(MonitorError, match="WANDB_API_KEY") as caught:
        Monitor(MonitorOptions.model_validate(online), tracked(tmp_path))
    assert (caught.value.key, caught.value.value) == ("monitor.trackers[0].options.mode", "online")
    (tmp_path / "netrc").write_text("default login user password " + 40 * "a")  # as `wandb login` leaves it
    Monitor(MonitorOptions.model_validate(online), tracked(tmp_path)).close()


@pytest.mark.slow
def test_wandb_takes_along_neither_the_command_nor_the_packages(tmp_path: Path) -> None:
    """The command may hold secrets (`--set`); and off line nothing leaves the machine."""
    _needs("wandb")
    script = f"""
import os
from pathlib import Path
import psutil
from hetero.monitoring.tracker import load_tracker
from tests.unit.hetero.monitoring.runs import line, tracked
kind = load_tracker("wandb")
tracker = kind(tracked(Path({str(tmp_path)!r})), kind.Options())
tracker.log(0, line(0)["time"], {{"loss": 1.0}})
all_there_are = psutil.process_iter(["ppid", "cmdline"])
children = (one for one in all_there_are if one.info["ppid"] == os.getpid())
(core,) = (one for one in children if "wandb-core" in " ".join(one.info["cmdline"] or ()))
print(core.pid, core.info["cmdline"])
tracker.close()
"""
    command = [sys.executable, "-c", script, "--set", "pools.a.env.vars.TOKEN=hush-hush"]
    env = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # that of a tracker in here
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=RUN_S)
    assert ran.returncode == 0, ran.stderr
    assert "--no-observability" in ran.stdout, "it reports its own faults to its makers"
    core, until = int(ran.stdout.split()[0]), time.monotonic() + WAIT_S
    while psutil.pid_exists(core):  # it writes to its end
        assert time.monotonic() < until
        time.sleep(0.1)
    written = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file() and not path.is_symlink()]
    (path,) = (path for path in written if path.suffix == ".wandb")
    assert b"linux" in path.read_bytes(), "where it would be"
    for path in written:
        for word in (b"hush-hush", sys.executable.encode(), b"numpy=="):
            assert word not in path.read_bytes(), (path, word)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_option_has_a_default(name: str) -> None:
    _needs(name)
    assert load_tracker(name).Options() is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_tracker_works_without_a_home(name: str, tmp_path: Path) -> None:
    _needs(name)
    script = f"""
import os
os.getuid = lambda: 2**31 - 5  # of a user whom nobody knows
from hetero.monitoring.options import MonitorOptions
from hetero.monitoring.monitor import Monitor
from tests.unit.hetero.monitoring.runs import line, tracked
from pathlib import Path
run = tracked(Path({str(tmp_path)!r}))
monitor = Monitor(MonitorOptions.model_validate({{"trackers": [{name!r}]}}), run)
notices = monitor.start() + monitor.record(line(0)) + monitor.close()
assert notices == [], notices
"""
    own = {"PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=own, check=True, timeout=RUN_S)
