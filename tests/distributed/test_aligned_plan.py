"""`hetero align` against a plan, whose ranks are of three emulated families."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from balancer.plan.plan import Plan
from hetero.cli.app import run
from tests.distributed.cases import a1, k2, n2, pipeline, plan
from tests.unit.hetero.align.planted import write

pytestmark = pytest.mark.slow
CHIPS = {"nvidia": ("cuda", "A800-80G"), "ascend": ("ascend", "Ascend-910B2"), "kunlun": ("kunlun", "Kunlun-P800")}


def _command(folder: Path, found: Plan, *more: str) -> list[str]:
    """Of a model, a job of real chips on chats of bytes, and the plan."""
    model = write(folder / "model", "qwen2", vocab_size=257)
    rows = [{"prompt": "what? " * (n % 3), "completion": "that" * (1 + n % 2)} for n in range(60)]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        "model": {"hf": model},
        "data": {"source": str(folder / "chats.jsonl"), "loss": "answers", "tokenizer": "bytes", "seq_len": 24},
        "train": {"steps": 2, "global_batch": 6, "precision": "bfloat16", "lora": {"rank": 2}},
        "eval": {"every": 1, "batches": 1},
        "pools": {name: {"family": family, "chip": chip, "count": 2} for name, (family, chip) in CHIPS.items()},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    (folder / "plan.json").write_text(found.to_json())
    against = ["--against", str(folder / "plan.json"), "--reference-dtype", "float32"]
    return ["align", "--model", model, *against, "--json", *more]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_mixed_plan_computes_what_one_process_does_of_packed_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = plan(
        pipeline(4, n2(0, 3, recompute="full"), a1(3, 6), micro_batch=2),
        pipeline(2, k2(0, 6, sequence_parallel=True), micro_batch=2),
    )
    status = run([*_command(tmp_path, mixed), "--job", str(tmp_path / "job.yaml")])
    told = json.loads(capsys.readouterr().out)
    assert status == 0, told["faults"]
    assert told["aligned"]
    assert told["emulated"]
    assert [unit["place"].partition(", ")[2] for unit in told["units"][2:4]] == [
        "nvidia tp 2 + kunlun tp 2", "ascend tp 1 + kunlun tp 2",
    ]  # fmt: skip
    assert max(unit["whole"]["value"] for unit in told["units"]) > 0, "ranks that sum in another order round otherwise"


def test_what_a_link_loses_is_named_where_it_arrives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All else of that unit, the parts of its two ranks put together, is as in one process."""
    command = _command(tmp_path, plan(pipeline(6, a1(0, 3), n2(3, 6), micro_batch=3)))
    written = yaml.safe_load((tmp_path / "job.yaml").read_text())
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**written, "bridge": {"codec": "int8"}}))
    assert run(command) == 1
    told = json.loads(capsys.readouterr().out)
    first = next(fault for fault in told["faults"] if fault["what"] == "value")
    assert (first["unit"], first["operator"]) == (3, "norm")
    assert first["place"].endswith("nvidia tp 2")
    found = told["units"][3]["operators"]
    assert {"norm", "q", "k", "v", "attention", "o"} <= found.keys()
    assert max(error for name, error in found.items() if name not in ("norm", "sum")) < 1e-5 < found["norm"]
