"""The directory that a job's model comes from: its weights fit, and a run keeps what belongs to it beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

from backends import core_schema
from hetero.cluster.host.shared_files import ModelFolder
from hetero.huggingface.folder import CONFIG, HfFolder
from hetero.job.file.load import JOB_FILE, KEPT_MODEL, recorded_job
from hetero.job.job import Job
from hetero.models.description import ModelDescription
from hetero.models.hf_model import HfModel
from hetero.models.stored_weights import StoredWeights
from hetero.models.tuning import LoraOptions


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
    if job.model.hf is not None:
        keep_folder(job.model.folder(), run_dir)


def keep_folder(folder: HfFolder, run_dir: Path) -> None:
    """The same of a directory that no job names."""
    kept = run_dir / KEPT_MODEL
    kept.mkdir()
    for path in folder.beside:
        shutil.copyfile(path, kept / path.name)


def kept_files(run_dir: Path) -> tuple[Path, ...]:
    """What a run keeps of its model's directory; nothing of a model that came from none."""
    return HfFolder(run_dir / KEPT_MODEL).beside


def recorded_adapters(run_dir: Path) -> tuple[LoraOptions | None, str | None]:
    """How a run has trained adapters, and where its model's directory lay. Nothing was trained where no job was run, as
    of what was imported."""
    if not (run_dir / JOB_FILE).exists():
        return None, None
    written = core_schema.load((run_dir / JOB_FILE).read_text(encoding="utf-8"))
    return recorded_job(run_dir).train.lora, written.get("model", {}).get("hf")


def recorded_model(run_dir: Path) -> ModelDescription:
    """Of a run, wherever its model's directory is by now. Raises errors that explain themselves."""
    if (run_dir / KEPT_MODEL / CONFIG).exists():
        return HfModel.of(HfFolder(run_dir / KEPT_MODEL).config)
    return recorded_job(run_dir).model.resolve()
