"""The same by the commands that a user types: a directory's weights, three families, and a directory again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from hetero.data.options import DataOptions
from hetero.data.source import prepare
from hetero.huggingface.folder import HfFolder
from hetero.models.hf_model import HfModel
from hetero.words.options import TrainOptions
from tests.distributed.fleet import SEQ_LEN, Job
from tests.distributed.plain import GlobalBatches
from tests.e2e.command import Command, Run, short_folder
from tests.patience import RUN_S, WAIT_S
from tests.tiny_hf import HfTraining, write_llama

LR, STEPS, BATCH = 0.05, 2, 4
POOLS = {
    "nvidia": {"family": "cuda", "chip": "A800-80G", "count": 1, "emulate": {}},
    "ascend": {"family": "ascend", "chip": "Ascend-910B2", "count": 1, "emulate": {}},
    "kunlun": {"family": "kunlun", "chip": "Kunlun-P800", "count": 1, "emulate": {}},
}


def _job(folder: Path) -> Path:
    """Beside the directory."""
    write_llama(folder / "tiny")
    (folder / "tiny" / "tokenizer.json").write_text("{}")
    (folder / "text").write_bytes(bytes(i * i // 5 % 256 for i in range(20_000)))
    units = [("nvidia", [0, 2]), ("ascend", [2, 3]), ("kunlun", [3, 6])]
    stages = [{"pool": pool, "tp": 1, "units": bounds} for pool, bounds in units]
    optimizer = {"name": "sgd", "lr": LR, "clip": None}
    job = {
        "model": {"hf": "tiny", "init": "weights"},
        "data": {"source": str(folder / "text"), "tokenizer": "bytes", "seq_len": SEQ_LEN},
        "train": {"steps": STEPS, "global_batch": BATCH, "optimizer": optimizer},
        "pools": POOLS,
        "balance": {"mode": "manual", "pipelines": [{"share": BATCH, "stages": stages}]},
        "checkpoint": {"every": STEPS},
        "time_scale": 1.0,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


@pytest.mark.exhaustive
def test_in_and_out() -> None:
    with short_folder() as place:
        job, run = _job(place), Run(place / "run")
        with Command(place, "train", job, "--run-dir", run.folder) as command:
            assert command.wait(RUN_S) == 0, command.output
        (place / "tiny").rename(place / "gone")
        for arguments in (["verify", run.folder], ["export", f"{run.folder}@{STEPS}", place / "out"]):
            with Command(place, "checkpoint", *arguments) as command:
                assert command.wait(WAIT_S) == 0, command.output
        assert {path.name for path in HfFolder(place / "out").beside} == {"config.json", "generation_config.json"}

        text = prepare(DataOptions(source=str(place / "text"), seq_len=SEQ_LEN), place / "data")
        told = HfModel.of(HfFolder(place / "gone").config)
        theirs = HfTraining(place / "gone", LR)
        batches = GlobalBatches(text, Job(told, TrainOptions(steps=STEPS, global_batch=BATCH)))
        for number, line in enumerate(run.metrics):
            batch = batches[number]
            assert line["loss"] == pytest.approx(theirs.step(batch.tokens_BT, batch.labels_BT), rel=1e-6)
        back = HfTraining(place / "out", LR).model
        saved = HfTraining(run.folder / "checkpoints" / f"step-{STEPS:08d}", LR).model
        assert all(torch.equal(*pair) for pair in zip(saved.parameters(), back.parameters(), strict=True))
        for (name, found), (_, wanted) in zip(back.named_parameters(), theirs.model.named_parameters(), strict=True):
            assert torch.linalg.norm(found - wanted) <= 1e-6 * torch.linalg.norm(wanted), name
