"""The commands from the outside; what `hetero train` calls is replaced, since training has its own tests."""

from __future__ import annotations

import json
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from hetero.cli.app import run
from hetero.cluster.errors import HostFailure
from hetero.monitoring.timeline import last_timeline
from tests.architecture.tree import ROOT

AUTO = str(ROOT / "configs" / "runs" / "auto.yaml")
QUICKSTART = str(ROOT / "configs" / "runs" / "quickstart.yaml")


class Trainer:
    """Stands in for `hetero.run`: notes how it was called, then does as told."""

    def __init__(self) -> None:
        self.called: dict[str, Any] = {}
        self.error: Exception | None = None

    def __call__(self, job: Any, run_dir: Path, **options: Any) -> None:
        self.called = {"job": job, "run_dir": run_dir, **options}
        if self.error:
            raise self.error


@pytest.fixture(autouse=True)
def _nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
    trainer = Trainer()
    module = types.ModuleType("hetero.run")
    module.train = trainer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hetero.run", module)
    monkeypatch.chdir(tmp_path)
    return trainer


def test_train_hands_over_what_was_asked(trainer: Trainer) -> None:
    assert run(["train", QUICKSTART, "--set", "train.steps=5", "--address", "ray://x", "--resume", "old@3"]) == 0
    called = trainer.called
    assert called["job"].train.steps == 5
    assert (called["address"], called["resume"], called["plan"]) == ("ray://x", "old@3", None)
    assert called["run_dir"].parent == Path("runs")
    assert called["run_dir"].name.startswith("quickstart-")
    assert callable(called["on_record"])
    assert callable(called["on_event"])
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), "a signal is kept waiting for good"


@pytest.mark.parametrize("file", ["metrics.jsonl", "events.jsonl", "job.yaml"])
def test_a_directory_that_holds_a_run_is_not_used_again(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    (tmp_path / file).touch()
    assert run(["train", QUICKSTART, "--run-dir", str(tmp_path)]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert not trainer.called


def test_a_directory_without_a_run_is_used(trainer: Trainer, tmp_path: Path) -> None:
    assert run(["train", QUICKSTART, "--run-dir", str(tmp_path)]) == 0
    assert trainer.called["run_dir"] == tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "none.yaml"],
        ["train", QUICKSTART, "--set", "train.stpes=1"],
        ["train", QUICKSTART, "--plan", "none.json"],
        ["train", QUICKSTART, "--unknown"],
        ["train"],
        ["fly"],
    ],
)
def test_a_users_mistake_is_2_without_a_traceback(
    trainer: Trainer, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr().err
    assert shown
    assert "Traceback" not in shown
    assert not trainer.called


def test_a_failure_is_1_and_explained(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    trainer.error = HostFailure("endpoint", "a@0", "died by signal 9", "see its log", host="a@0", cause="killed")
    assert run(["train", QUICKSTART]) == 1
    assert "died by signal 9" in capsys.readouterr().err


def test_interruption_is_1(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["hetero.run"], "train", interrupt)
    assert run(["train", QUICKSTART]) == 1


def test_a_given_plan_reaches_the_run(trainer: Trainer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["plan", QUICKSTART, "--json"]) == 0
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(json.loads(capsys.readouterr().out)["plan"]))
    assert run(["train", AUTO, "--plan", str(path)]) == 0
    assert [pipeline.share for pipeline in trainer.called["plan"].pipelines] == [6, 8]


def test_plan_prints_stages_grid_and_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", QUICKSTART]) == 0
    text = capsys.readouterr().out
    for expected in ("kunlun", "0-1", "2-9", "F0", "B0", "predicted step", "emulated", "efficiency_vs_ideal"):
        assert expected in text


def test_plan_shows_all_that_stages_ask_for_beyond_the_plain_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first = {"pool": "nvidia", "tp": 2, "units": [0, 2], "sequence_parallel": True, "tp_slices": 2}
    second = {"pool": "ascend", "tp": 4, "units": [2, 10], "optimizer": "host"}
    second["recompute"] = {"full": 1, "selective": 2}
    rest = {"pool": "kunlun", "units": [0, 10]}
    pipelines = [{"share": 8, "stages": [first, second]}, {"share": 6, "stages": [rest]}]
    assert run(["plan", QUICKSTART, "--set", f"balance.pipelines={json.dumps(pipelines)}"]) == 0
    text = capsys.readouterr().out
    for expected in (
        " strategies ",
        " sequence_parallel, tp_slices 2 ",
        " recompute 1 full + 2 selective, optimizer host ",
    ):
        assert expected in text
    assert run(["plan", QUICKSTART]) == 0
    assert "strategies" not in capsys.readouterr().out


def test_plan_says_which_pool_is_left_idle_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    slow = [{"between": ["nvidia", other], "gbit_per_s": 1e-6, "rtt_ms": 1e6} for other in ("ascend", "kunlun")]
    assert run(["plan", AUTO, "--set", f"bridge.links={json.dumps(slow)}"]) == 0
    assert "note: 2 of 2 chips of pool nvidia idle: the best plan with it takes" in capsys.readouterr().out


def test_plan_as_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", AUTO, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["model"] == {"told": "llama-tiny", "provider": "native"}
    own = {"job", "emulated", "model", "plan", "prediction", "memory", "links", "runners_up", "idle", "notes"}
    own |= {"origins", "why", "worth"}
    assert set(data) == own
    assert data["links"] == data["idle"] == []
    assert data["emulated"] is True
    assert data["prediction"]["step_s"] > 0
    assert sum(pipeline["share"] for pipeline in data["plan"]["pipelines"]) == 14


def test_plan_writes_the_predicted_step_as_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", QUICKSTART, "--json", "--trace", str(tmp_path / "trace.json")]) == 0
    data = json.loads(capsys.readouterr().out)
    timeline = last_timeline(tmp_path / "trace.json")
    assert timeline is not None
    assert len(timeline.ranks) == sum(len(pipeline["stages"]) for pipeline in data["plan"]["pipelines"])
    kinds = [[span.kind for span in spans] for spans in timeline.ranks.values()]
    assert all({"F", "B", "STEP"} <= set(each) for each in kinds)
    assert any("wait" in each for each in kinds)
    ends = [spans[-2].start_s + spans[-2].seconds for spans in timeline.ranks.values()]
    assert max(ends) <= data["prediction"]["step_s"] * 1.001
    titles = json.loads((tmp_path / "trace.json").read_text())[0]["args"]["name"]
    assert titles.endswith("emulated), predicted")
    assert run(["plan", QUICKSTART, "--trace", str(tmp_path)]) == 2
    assert "--trace" in capsys.readouterr().err


def test_plan_tells_chips_that_it_leaves_over(capsys: pytest.CaptureFixture[str]) -> None:
    odd = ["plan", AUTO, "--set", "pools.nvidia.count=3"]
    assert run(odd) == 0
    text = capsys.readouterr().out
    assert "note: 1 of 3 chips of pool nvidia idle: tp 2 does not divide 3; use a tp of 1 there, or" in text
    assert run([*odd, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [(idle["pool"], idle["chips"], idle["count"]) for idle in data["idle"]] == [("nvidia", 1, 3)]
    assert data["prediction"]["efficiency"]["ledger_idle"] > 0.01


@pytest.mark.slow
def test_plan_shows_equal_pipelines_once_however_many_chips_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = "stages: [{pool: a, tp: 8, units: [0, 2]}, {pool: a, tp: 8, units: [2, 4]}]"
    job = tmp_path / "job.yaml"
    job.write_text(f"""\
model: {{dimensions: {{layers: 1, hidden: 128, heads: 8, kv_heads: 8, ffn: 128, vocab: 512}}}}
data: {{source: python-stdlib, seq_len: 64}}
train: {{steps: 1, global_batch: 192}}
pools: {{a: {{family: cuda, chip: H100, count: 1024, chips_per_host: 8, emulate: {{}}}}}}
balance:
  pipelines: [{{share: 4, replicas: 32, {half}}}, {{share: 2, replicas: 32, {half}}}]
""")
    assert run(["plan", str(job)]) == 0
    text = capsys.readouterr().out
    assert text.count("0-31 (x 32)") == text.count("32-63 (x 32)") == 3  # two stages and the grid
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) < 200


def test_plan_shows_the_links_that_have_a_codec_and_what_it_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", QUICKSTART, "--set", "bridge.links[0].codec={activation: int8, gradient: bf16}"]
    assert run(arguments) == 0
    text = capsys.readouterr().out
    assert "nvidia - ascend: activation int8 (0.25), gradient bf16 (0.50)" in text
    assert "nvidia - kunlun:" not in text
    assert run([*arguments, "--json"]) == 0
    (link,) = json.loads(capsys.readouterr().out)["links"]
    assert (link["between"], link["activation"], link["gradient_ratio"]) == (["nvidia", "ascend"], "int8", 0.5)


def test_gradients_coarser_than_activations_are_refused_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", QUICKSTART, "--set", "bridge.codec={activation: bf16, gradient: fp8}"]) == 2
    text = capsys.readouterr().err
    assert "bridge.codec.gradient" in text
    assert "set gradient to none or bf16, or activation to fp8" in text
