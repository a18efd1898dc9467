"""A Hugging Face directory in, trained over three families, a directory out: as transformers trains it alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hetero.checkpoint.export import export
from hetero.checkpoint.hf_weights import verify_weights
from hetero.checkpoint.resume import CHECKPOINTS, ResumePoint
from hetero.data.source import Prepared
from hetero.huggingface.folder import HfFolder
from hetero.models.hf_model import HfModel
from hetero.words.options import OptimizerOptions, TrainOptions
from tests.distributed.cases import a4, k1, n2, pipeline, plan
from tests.distributed.fleet import Job, Standing
from tests.distributed.plain import GlobalBatches
from tests.tiny_hf import HfTraining, write_llama

LR, STEPS = 0.05, 2


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.exhaustive)])
def test_in_and_out(dtype: torch.dtype, fleet: Standing, text: Prepared, tmp_path: Path) -> None:
    folder = HfFolder(write_llama(tmp_path / "in", dtype, tie_word_embeddings=True))
    train = TrainOptions(steps=STEPS, global_batch=6, optimizer=OptimizerOptions(name="sgd", lr=LR, clip=None))
    job = Job(HfModel.of(folder.config), train)
    mixed = plan(pipeline(4, k1(0, 2), n2(2, 3), a4(3, 6)), pipeline(2, n2(0, 6), micro_batch=2))
    checkpoints = tmp_path / "run" / CHECKPOINTS
    run = fleet.train(job, mixed, weights=folder.path, save_to=checkpoints, save_directory=True)
    point = ResumePoint(tmp_path / "run", STEPS)
    export(point, job.dimensions, folder.beside, tmp_path / "out", "hf", "float32")

    theirs, batches = HfTraining(folder.path, LR), GlobalBatches(text, job)
    for number, loss in enumerate(run.losses):
        batch = batches[number]
        assert loss == pytest.approx(theirs.step(batch.tokens_BT, batch.labels_BT), rel=1e-6)
    back = HfTraining(tmp_path / "out", LR).model
    assert back.config.tie_word_embeddings
    for (name, found), (_, wanted) in zip(back.named_parameters(), theirs.model.named_parameters(), strict=True):
        assert torch.linalg.norm(found - wanted) <= 1e-6 * torch.linalg.norm(wanted), name
    saved = checkpoints / f"step-{STEPS:08d}"
    for found, wanted in zip(HfTraining(saved, LR).model.parameters(), back.parameters(), strict=True):
        assert torch.equal(found, wanted.to(dtype).float()), "the checkpoint itself is the model in its own type"
    verify_weights(point.store, STEPS)
    tokens_BT = batches[STEPS].tokens_BT
    torch.testing.assert_close(back(tokens_BT).logits, theirs.model(tokens_BT).logits, rtol=1e-5, atol=1e-5)
