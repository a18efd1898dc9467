"""A model with its weights, wherever these lie: a Hugging Face directory, or a checkpoint of a run."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path

import torch

from bridge.layout.layout import whole
from hetero.checkpoint.adapters import merged, read_whole
from hetero.checkpoint.errors import CheckpointError
from hetero.checkpoint.export import export
from hetero.checkpoint.pieces import CheckpointReader
from hetero.checkpoint.resume import ResumePoint
from hetero.huggingface.folder import CONFIG, HfFolder
from hetero.huggingface.hub import place
from hetero.huggingface.reader import HfReader
from hetero.job.run.model import JOB_FILE, kept_files, recorded_adapters, recorded_model
from hetero.models.adapter import is_adapter
from hetero.models.as_hf import as_hf
from hetero.models.description import ModelDescription
from hetero.models.hf_model import HfModel
from hetero.models.registry import architecture
from hetero.models.stored_weights import StoredWeights
from hetero.models.weight_map import WeightMap


class Source(ABC):
    """`name` is what a person called it."""

    name: str
    description: ModelDescription

    @abstractmethod
    def read(self, logical: str) -> torch.Tensor:
        """A whole logical tensor, in the type that it is stored in."""

    @abstractmethod
    def directory(self) -> AbstractContextManager[Path]:
        """The model as a directory that transformers loads."""

    @property
    @abstractmethod
    def map(self) -> WeightMap:
        """Where a directory has its tensors."""

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the model's logical tensors, by name."""
        model = architecture(self.description)
        specs = (spec for unit in range(len(model.units)) for spec in model.tensors(unit, 1).values())
        return {spec.name: spec.layout.shape for spec in specs}

    def lacking(self) -> dict[str, str]:
        """By a tensor's name in a directory, why it cannot be read as the model has it."""
        return {}


class HfSource(Source):
    """A directory. Raises HfError where it has tensors that are not the model's."""

    def __init__(self, path: Path, name: str) -> None:
        self.name, self._folder = name, HfFolder(path, name, "--model")
        self.description: HfModel = HfModel.of(self._folder.config)
        self._stored, self._reader = StoredWeights(self.description, self._folder), HfReader(self._folder)

    @property
    def map(self) -> WeightMap:
        return self._stored.map

    def read(self, logical: str) -> torch.Tensor:
        def get(name: str, slices: tuple[slice, ...]) -> torch.Tensor:
            return self._reader.get(self._stored.names[name], slices)

        return self.map.read(logical, whole(self.shapes[logical]), get)

    def lacking(self) -> dict[str, str]:
        """Also raises HfError for what else does not fit."""
        found = {name: f"{self.name} has no {self._stored.names[name]}" for name in self._stored.lost}
        if not found:
            self._stored.check_known()
            for tie, owner in self._stored.untied:
                found[tie] = f"{tie} is said to be {owner} (tie_word_embeddings), but is not equal to it"
        return found

    @contextmanager
    def directory(self) -> Iterator[Path]:
        yield self._folder.path


class RunSource(Source):
    """A checkpoint of a run, low-rank adapters folded into the weights. Raises CheckpointError for adapters of which no
    job says how much they add."""

    def __init__(self, point: ResumePoint) -> None:
        self.name, self._point = str(point), point
        self.description = recorded_model(point.run_dir)
        self._adapters, _ = recorded_adapters(point.run_dir)
        self._stored = CheckpointReader(point.store, point.step)
        with self._stored as reader:
            if self._adapters is None and any(map(is_adapter, reader.names())):
                rule = f"the checkpoint has adapters, and no {JOB_FILE} beside it says how much they add"
                raise CheckpointError("--model", str(point), rule, f"bring the {JOB_FILE} of its run")

    @property
    def map(self) -> WeightMap:
        return StoredWeights(as_hf(self.description), HfFolder(self._point.run_dir)).map

    def read(self, logical: str) -> torch.Tensor:
        with self._stored as reader:
            if self._adapters is None:
                return read_whole(reader, logical)
            return merged(reader, self._adapters, logical)

    @contextmanager
    def directory(self) -> Iterator[Path]:
        beside = kept_files(self._point.run_dir)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model"
            export(self._point, as_hf(self.description), beside, target, "hf", "float32", self._adapters)
            yield target


def source(text: str, key: str) -> Source:
    """What a person called `text`: a folder with config.json or a name in the local hub cache is a directory, and all
    else RUN_DIR[@STEP]. Raises errors that explain themselves."""
    run = text.rpartition("@")[0] or text
    if os.path.exists(os.path.join(os.path.expanduser(run), JOB_FILE)):
        return RunSource(ResumePoint.parse(text, key))
    path = place(text, key)
    if not (path / CONFIG).exists():
        return RunSource(ResumePoint.parse(text, key))
    return HfSource(path, text)
