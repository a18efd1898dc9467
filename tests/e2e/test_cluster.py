"""A mixed Ray cluster as it is meant to be used: jobs handed in from outside, looked after, ended and fetched."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tests.e2e.bad_input.test_full_disk import NAMESPACE
from tests.e2e.command import ROOT, Command, Run, short_folder
from tests.e2e.listeners import differences, listeners
from tests.patience import RUN_S, WAIT_S
from tests.stand_in.ascend import machine

POOLS = {"nvidia": ("cuda", "A800-80G", "GPU"), "ascend": ("ascend", "Ascend-910B2", "NPU")}
STAGES = (("nvidia", [0, 2]), ("ascend", [2, 4]))
JOB = {
    "model": {"dimensions": {"layers": 1, "hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 32, "vocab": 257}},
    "train": {"steps": 100_000, "global_batch": 2},
    "pools": {
        name: {
            "family": family, "chip": chip, "count": 1, "tp": 1, "emulate": {},
            "select": {"labels": {"family": family}, "resources": {resource: 1}},
        }
        for name, (family, chip, resource) in POOLS.items()
    },
    "balance": {"mode": "manual", "pipelines": [
        {"share": 2, "stages": [{"pool": pool, "tp": 1, "units": units} for pool, units in STAGES]}
    ]},
    "time_scale": 3.0e6,  # steps of half a second, most of it sleep
}  # fmt: skip


@dataclass
class RayCluster:
    """The cluster, and a machine outside it, whose home and data it does not see."""

    jobs: str
    address: str
    home: Path
    outside: Path
    job: Path
    pid: int

    def hetero(self, *arguments: str | Path) -> Command:
        return Command(self.outside, *arguments)

    def says(self, *arguments: str, code: int = 0) -> str:
        with self.hetero(*arguments, "--address", self.jobs) as command:
            assert command.wait(RUN_S) == code, command.output
            return command.output

    def processes(self) -> list[psutil.Process]:
        """Ray's, and those of the jobs under way."""
        return psutil.Process(self.pid).children(recursive=True)

    def run(self, job_id: str) -> Run:
        return Run(self.home / "hetero-runs" / job_id)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    token = secrets.token_hex(16)
    with short_folder() as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", token)
        for name in ("home", "outside"):
            (place / name).mkdir()
        process = _start(place)
        try:
            assert process.stdout is not None
            jobs, address = (process.stdout.readline().strip() for _ in range(2))
            assert address, "the cluster did not start"
            job = _job_file(place / "outside")
            yield RayCluster(jobs, address, place / "home", place / "outside", job, process.pid)
        finally:
            process.communicate(timeout=RUN_S)


def _start(place: Path) -> subprocess.Popen[str]:
    own = {"HOME": str(place / "home"), "RAY_TMPDIR": str(place), "TMPDIR": str(place), "RAY_USAGE_STATS_ENABLED": "0"}
    own["RAY_metrics_report_interval_ms"] = "1000"  # by itself every ten seconds
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.nodes", str(place / "ray")],
        cwd=ROOT, env={**os.environ, **own, "PATH": path}, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def _job_file(folder: Path) -> Path:
    text, path = folder / "text.txt", folder / "mixed.yaml"
    text.write_bytes(bytes(range(256)) * 40)
    path.write_text(yaml.safe_dump(JOB | {"data": {"source": str(text), "seq_len": 16}}))
    return path


def until(holds: Callable[[], bool], command: Command, what: str) -> None:
    end = time.monotonic() + RUN_S
    while not holds():
        assert time.monotonic() < end, f"not within {RUN_S:g} s: {what}\n{command.output}"
        time.sleep(0.2)


def submitted(command: Command) -> str:
    """The name of the job, once the cluster has it."""
    until(lambda: "submitted" in command.output or command.process.poll() is not None, command, "submitted")
    found = re.search(r"submitted (\S+),", command.output)
    assert found, command.output
    return found[1]


def test_jobs_from_outside(cluster: RayCluster, tmp_path: Path) -> None:
    submit = ("submit", str(cluster.job), "--address", cluster.jobs)
    shared = cluster.home / "shared"
    saved = f"checkpoint={{every: 2, storage: {shared}}}"
    few = ("--set", "train.steps=4", "--set", "time_scale=1", "--set", saved, "--follow")
    with cluster.hetero(*submit) as first, cluster.hetero("submit", cluster.job) as nowhere:
        long = submitted(first)
        assert nowhere.wait(RUN_S) == 2, "an address is asked for"
        with cluster.hetero("jobs", "logs", "-f", long, "--address", cluster.jobs) as log:
            until(lambda: len(cluster.run(long).metrics) > 1, log, "the first job trains")
            processes = _placed(cluster.run(long))
            assert differences(listeners(cluster.processes()), "on a cluster") == []
            seen = cluster.hetero("top", long, "--address", cluster.jobs)
            page = cluster.hetero("dashboard", long, "--address", cluster.jobs)
            with cluster.hetero(*submit, *few) as second, seen, page:
                short = submitted(second)
                until(lambda: "queued" in second.output, second, "the second job waits")
                listed = cluster.says("jobs", "list")
                assert re.search(rf"^{long} +running ", listed, re.MULTILINE), listed
                assert re.search(rf"^{short} +queued ", listed, re.MULTILINE), listed
                assert seen.wait(RUN_S) == 0, seen.output
                assert all(part in seen.output for part in ("running", "slowest", *POOLS)), seen.output
                _follows(page, cluster.run(long))
                until(lambda: _in_rays_metrics(cluster, long), second, "Ray has the run's metrics")
                _stop(cluster, long, processes)
                assert log.wait(RUN_S) == 1, log.output
                assert second.wait(RUN_S) == 0, second.output
    assert "stopped" in cluster.says("jobs", "status", long)
    cluster.says("jobs", "fetch", short, "--to", str(tmp_path / "fetched"))
    fetched = Run(tmp_path / "fetched")
    assert [line["step"] for line in fetched.metrics] == [0, 1, 2, 3]
    assert fetched.metrics == cluster.run(short).metrics
    assert "queued" in [event["kind"] for event in fetched.events]
    assert sorted(path.name for path in (shared / short).iterdir()) == ["step-00000002", "step-00000004"]


def _follows(page: Command, run: Run) -> None:
    """Checks that a page shows a step that came after it was opened, and leaves nothing on this machine."""
    until(lambda: "dashboard of" in page.output, page, "the page is served")
    (url,) = re.findall(r"on (http://\S+/)", page.output)
    later = run.metrics[-1]["step"] + 1
    with urllib.request.urlopen(f"{url}stream", timeout=RUN_S) as stream:
        while not any(int(step) >= later for step in re.findall(r'"step": ?(\d+)', stream.readline().decode())):
            pass
    page.process.terminate()
    assert page.wait(RUN_S) == 0, page.output
    assert page.footprint.left() == []


def _in_rays_metrics(cluster: RayCluster, job: str) -> bool:
    """Whether some node's metrics endpoint tells the throughput of each of the job's pools."""
    listed = cluster.home.parent / "ray" / "prom_metrics_service_discovery.json"
    targets = json.loads(listed.read_text()) if listed.exists() else []
    told = ""
    for address in [address for target in targets for address in target["targets"]]:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT_S) as answer,
        ):
            told += answer.read().decode()
    return all(
        re.search(rf'^ray_hetero_pool_tokens_per_second{{[^}}]*pool="{pool}"[^}}]*run="{job}"', told, re.MULTILINE)
        for pool in POOLS
    )


def _placed(run: Run) -> list[psutil.Process]:
    """Checks that each pool is on its family's node, and runs and reads what was shipped; returns the processes."""
    pids = run.pids()
    for pool, (family, _, _) in POOLS.items():
        agent = psutil.Process(pids[f"{pool}@0 endpoint"]).parent()
        assert agent is not None
        raylet = agent.parent()
        assert raylet is not None
        assert f"--node-name={family}" in " ".join(raylet.cmdline()), raylet.cmdline()
        assert "working_dir_files" in psutil.Process(pids[f"{pool}:0"]).cwd()
    files = Path(f"/proc/{pids['nvidia:0']}/maps").read_text()
    assert re.search(r"/#\d+ \(deleted\)", files), "the text came without a name"
    assert "tokens.bin" not in files
    return [psutil.Process(pid) for pid in pids.values()]


def _stop(cluster: RayCluster, job: str, processes: list[psutil.Process]) -> None:
    assert "stopped" in cluster.says("jobs", "stop", job)
    assert not [process for process in processes if process.is_running()]
    assert cluster.run(job).events[-1]["kind"] == "interrupted"


ABACUS = ("--set", "pools.ascend.select.labels.family=abacus")


@pytest.mark.exhaustive
def test_hosts_that_do_not_reach_the_drivers_disk(cluster: RayCluster, tmp_path: Path) -> None:
    """They save there all the same, and another run goes on from there to the bit."""
    if subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode:
        pytest.skip("this system lets nobody mount a file system")
    first, second = cluster.outside / "first", cluster.outside / "second"
    train = [sys.executable, "-m", "tests.e2e.own_disk", "train", str(cluster.job), "--address", cluster.address]
    train += ["--set", "train.steps=4", "--set", "checkpoint={every: 2, format: hf}"]
    resumed = ["--resume", f"{first}@2", "--run-dir", str(second)]
    script = f"{shlex.join([*train, '--run-dir', str(first)])} && {shlex.join([*train, *resumed])}"
    own = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(tmp_path))
    subprocess.run([*NAMESPACE, "sh", "-c", script], cwd=ROOT, env={**os.environ, **own}, timeout=2 * RUN_S, check=True)
    notes = [event["data"]["note"] for event in Run(first).events if event["kind"] == "warning"]
    assert any(f"ascend@0, nvidia@0 do not reach {first}/checkpoints" in note for note in notes)
    assert "they hold the state alone; hetero checkpoint export makes directories of them" in notes
    losses = [[line["loss"] for line in Run(folder).metrics] for folder in (first, second)]
    assert losses[0][2:] == losses[1]


def test_a_pool_that_no_node_can_serve(cluster: RayCluster) -> None:
    said = cluster.says("submit", str(cluster.job), *ABACUS, "--follow", code=2)
    for part in ("pools.ascend.select", "labelled family abacus", "its label family is 'cuda', not abacus", "plain"):
        assert part in said, said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("by", "wrong", "code"),
    [
        pytest.param("address", (), 0, marks=pytest.mark.exhaustive, id="as one that joins"),  # as it does for chips
        pytest.param("jobs", ABACUS, 2, id="as one outside, a wrong job"),
        pytest.param("jobs", (), 0, marks=pytest.mark.exhaustive, id="as one outside"),
    ],
)
def test_the_doctor_asks_a_cluster(cluster: RayCluster, by: str, wrong: tuple[str, ...], code: int) -> None:
    ask = ("doctor", cluster.job, "--json", "--run-dir", cluster.outside / "runs", "--address", getattr(cluster, by))
    with cluster.hetero(*ask, *wrong) as command:
        assert command.wait(RUN_S) == code, command.output
    found = _of_the_cluster(command)
    if code == 0:
        assert found["pools.ascend"]["value"].startswith("ascend@0 on ascend ")
    else:
        assert "its label family is 'cuda', not abacus" in found["pools.ascend.select"]["rule"]


def _of_the_cluster(doctor: Command) -> dict[str, dict[str, str]]:
    """What it found, by the name of each check; checks that Ray and its nodes are among it."""
    told = json.loads(doctor.output[doctor.output.index("{") :])
    found = {one["check"]: one for one in told["findings"]}
    assert found["Ray"]["level"] == "ok"
    assert found["Ray's token"]["value"] == "asked for"
    (node,) = [one for check, one in found.items() if check.startswith("node ascend ")]
    assert re.search(r"\bNPU 1\b.*; labelled family=ascend", node["value"]), node
    return found


@pytest.mark.exhaustive
@pytest.mark.skipif(bool(machine.why_not()), reason=machine.why_not())
def test_chips_of_a_cluster_say_what_they_are(cluster: RayCluster) -> None:
    """Over the stand-in for CANN; those of another family have nothing that could answer."""
    env = f"{{python: {sys.executable}, vars: {json.dumps(machine.environment())}}}"
    real = ("--set", f"pools.ascend={{family: ascend, count: 1, select: {{labels: {{family: ascend}}}}, env: {env}}}")
    ask = ("doctor", cluster.job, "--json", "--run-dir", cluster.outside / "runs", "--address", cluster.address)
    with cluster.hetero(*ask, *real) as joined:
        joined.wait(RUN_S)
    told = _of_the_cluster(joined)
    assert told["pools.ascend"]["value"].startswith("ascend@0 on ascend ")
    assert told["pools.ascend.chip"]["value"] == "Ascend-910B2"
    assert "Ascend910B2" in told["pools.ascend.chip"]["rule"]
    silent = "pools.nvidia={family: cuda, count: 1, select: {labels: {family: cuda}}}"
    with cluster.hetero("train", cluster.job, "--address", cluster.address, "--set", silent) as refused:
        assert refused.wait(RUN_S) == 2, refused.output
    assert "pools.nvidia.chip" in refused.output
    assert "no chip of family cuda is there to say what it is" in refused.output


def test_wrong_tokens_and_names(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = cluster.hetero("jobs", "status", "none", "--address", cluster.jobs)
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
    token = cluster.hetero("jobs", "list", "--address", cluster.jobs)
    joining = cluster.hetero("train", cluster.job, "--address", cluster.address)
    said = {
        unknown: "there is no such job",
        token: "does not accept this token",
        joining: "does not accept this token",
    }
    for command, part in said.items():
        with command:
            assert command.wait(RUN_S) == 2, command.output
            assert part in command.output, command.output
            assert "Traceback" not in command.output
