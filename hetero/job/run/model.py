"""The directory that a job's model comes from: its weights fit, and a run keeps what belongs to the model beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

from hetero.cluster.host.shared_files import ModelFolder
from hetero.huggingface.folder import CONFIG, HfFolder
from hetero.job.file.load import KEPT_MODEL, recorded_job
from hetero.job.job import Job
from hetero.models.description import ModelDescription
from hetero.models.hf_model import HfModel
from hetero.models.stored_weights import StoredWeights


def checked_weights(job: Job) -> ModelFolder | None:
    """What each host must have where the run begins from weights; None where it does not. Raises HfError unless every
    tensor of the directory is one of the model's, and the other way round."""
    if job.model.weights is None:
        return None
    folder, model = job.model.folder(), job.model.resolve()
    assert isinstance(model, HfModel)
    StoredWeights(model, folder).check()
    return ModelFolder(job.model.weights, folder.fingerprint)


def keep_model(job: Job, run_dir: Path) -> None:
    """Configuration and tokenizer, without which weights are no model for others."""
    if job.model.hf is None:
        return
    kept = run_dir / KEPT_MODEL
    kept.mkdir()
    for path in job.model.folder().beside:
        shutil.copyfile(path, kept / path.name)


def kept_files(run_dir: Path) -> tuple[Path, ...]:
    """What a run keeps of its model's directory; nothing of a model that came from none."""
    return HfFolder(run_dir / KEPT_MODEL).beside


def recorded_model(run_dir: Path) -> ModelDescription:
    """Of a run, wherever its model's directory is by now. Raises errors that explain themselves."""
    if (run_dir / KEPT_MODEL / CONFIG).exists():
        return HfModel.of(HfFolder(run_dir / KEPT_MODEL).config)
    return recorded_job(run_dir).model.resolve()
