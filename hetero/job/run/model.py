"""The directory that a job's model comes from: its weights fit, and a run keeps what belongs to a model beside them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from backends import core_schema
from hetero.checkpoint.hf_directory import HfDirectory
from hetero.checkpoint.hf_layout import HfLayout
from hetero.cluster.host.shared_files import ModelFolder
from hetero.data.options import BYTES
from hetero.huggingface.folder import CONFIG, TOKENIZER_FILES, HfFolder
from hetero.job.file.load import JOB_FILE, KEPT_MODEL, recorded_job
from hetero.job.job import Job
from hetero.models.as_hf import as_hf
from hetero.models.description import ModelDescription
from hetero.models.hf_model import HfModel
from hetero.models.stored_weights import StoredWeights
from hetero.models.tuning import LoraOptions
from hetero.paths import local


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
    """Its configuration and the tokenizer of the text, without which weights are no model for others."""
    model = job.model.folder().beside if job.model.hf is not None else ()
    tokenizer = job.text().tokenizer
    text = HfFolder(local(tokenizer, "data.tokenizer")).beside if tokenizer != BYTES else ()
    used = [path for path in text if path.name in TOKENIZER_FILES]
    _keep([*(path for path in model if path.name not in TOKENIZER_FILES), *used], run_dir)


def keep_folder(folder: HfFolder, run_dir: Path) -> None:
    """The same of a directory that no job names."""
    _keep(folder.beside, run_dir)


def _keep(files: Sequence[Path], run_dir: Path) -> None:
    kept = run_dir / KEPT_MODEL
    if files:
        kept.mkdir()
    for path in files:
        shutil.copyfile(path, kept / path.name)


def kept_files(run_dir: Path) -> tuple[Path, ...]:
    """What a run keeps of its model's directory; nothing of a model that came from none."""
    return HfFolder(run_dir / KEPT_MODEL).beside


def checkpoint_directory(job: Job, run_dir: Path) -> HfDirectory | None:
    """What makes a run's checkpoints directories of its model; None where they are none."""
    if not job.saves_directory:
        return None
    return HfDirectory(HfLayout(as_hf(job.model.resolve())), kept_files(run_dir))


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
