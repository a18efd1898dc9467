"""What one type of model comes to against transformers: `python -m benchmarks.models` has all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from hetero.checkpoint.export import export
from hetero.checkpoint.resume import CHECKPOINTS, ResumePoint
from hetero.huggingface.folder import WEIGHTS, HfFolder
from hetero.huggingface.reader import HfReader
from hetero.layers import cross_entropy, sliced_loss
from hetero.layers.cross_entropy import cross_entropy_sum
from hetero.models.batch import Batch
from hetero.models.hf_model import HfModel
from hetero.models.registry import NATIVE, architecture, provider
from hetero.models.stored_weights import StoredWeights
from hetero.words.options import OptimizerOptions, TrainOptions
from tests.distributed.cases import a1, n1, n2, pipeline, plan
from tests.distributed.fleet import Job, Standing
from tests.distributed.laws import TOLERANCES, tensor_deviation
from tests.distributed.plain import GlobalBatches, PlainModel
from tests.tiny_hf import gradient, random_model
from tests.tiny_models import TINY, tiny
from tests.tiny_provided import tiny_provided

LIMIT, FLOOR = 1e-5, TOLERANCES["float32"].floor
VOCAB = 257
NO_CHANGE = OptimizerOptions(name="sgd", lr=1e-300, clip=None)
"""An update too small for any bit of a value."""
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Card:
    """Deviations are the largest of any tensor, relative to it by norm (law 1); None where that was not reached.

    tp                   of the mixed plan's first stage
    tensors, parameters  of the tiny directory
    logits, gradients    one process of ours against transformers
    mixed                gradients of the mixed plan against transformers
    mixed_vs_one         the same against one process of ours
    bit_equal            whether every tensor comes back as it was
    fault                what does not hold; nothing if all does
    alone                why it takes samples of one document alone; nothing if it takes others
    refused              why no provider serves the type
    """

    kind: str
    provider: str = NATIVE
    tp: int = 2
    tensors: int = 0
    parameters: int = 0
    logits: float | None = None
    gradients: float | None = None
    mixed: float | None = None
    mixed_vs_one: float | None = None
    bit_equal: bool | None = None
    fault: str = ""
    alone: str = ""
    refused: str = ""


def card(kind: str, fleet: Standing, folder: Path) -> Card:
    """`folder` is made, and gets all that is written. The fleet has the pools `nvidia` and `ascend`."""
    model = tiny(kind, vocab_size=VOCAB) if kind in TINY else tiny_provided(kind)
    architecture(model)  # or it is refused
    theirs = random_model(model)
    theirs.save_pretrained(folder / "in")
    stored = HfFolder(folder / "in")
    job = Job(HfModel.of(stored.config), TrainOptions(steps=1, global_batch=2, optimizer=NO_CHANGE))
    batch = GlobalBatches(fleet.text, job)[0]
    ours = _Ours(stored, batch)
    wanted = _Theirs(theirs, batch, folder)
    tp = 1 if architecture(job.dimensions).legal_tp(2) else 2
    mixed = _mixed_gradients(job, tp, fleet, folder)
    zeros = {name: np.zeros_like(one) for name, one in ours.gradients.items()}
    found = Card(
        kind,
        provider=provider(job.dimensions),
        tp=tp,
        tensors=len(stored.tensors),
        parameters=sum(prod(tensor.shape) for tensor in stored.tensors.values()),
        logits=_deviation(ours.logits_BTV, wanted.logits_BTV),
        gradients=wanted.deviation(ours.written(ours.gradients)),
        mixed=wanted.deviation(ours.written(zeros | mixed)),
        mixed_vs_one=tensor_deviation(zeros | mixed, ours.gradients, FLOOR).deviation,
        alone=architecture(job.dimensions).alone or "",
        bit_equal=_is_same(stored, _exported(job, stored, folder), ours.stored.map.ties),
    )
    return replace(found, fault=_fault(found, wanted, folder / "out"))


class _Ours:
    """One process, with a directory's values."""

    def __init__(self, folder: HfFolder, batch: Batch) -> None:
        model, reader = HfModel.of(folder.config), HfReader(folder)
        self.stored = StoredWeights(model, folder)
        self.stored.check()
        plain, names = PlainModel(model, seed=0), self.stored.names
        with torch.no_grad():
            for name, parameter in plain.parameters.items():
                box = tuple((0, extent) for extent in parameter.shape)
                read = self.stored.map.read(name, box, lambda name, slices: reader.get(names[name], slices))
                parameter.copy_(read)
        with _seen_logits() as seen:
            loss = plain.loss_sum(batch) / batch.labels_BT.numel()
        loss.backward()
        (logits_NV,) = seen
        self.logits_BTV = logits_NV.detach().view(*batch.tokens_BT.shape, -1)
        self.gradients = {name: gradient(parameter).numpy() for name, parameter in plain.parameters.items()}

    def written(self, values: Arrays) -> dict[str, torch.Tensor]:
        """As the directory would have them."""
        found = self.stored.map
        return {name: found.write(name, lambda one: torch.from_numpy(values[one])) for name in found.foreign}


class _Theirs:
    """transformers' own model."""

    def __init__(self, model: Any, batch: Batch, folder: Path) -> None:
        self.tokens_BT, self._folder = batch.tokens_BT, folder / "gradients"
        logits_BTV = model(batch.tokens_BT).logits
        F.cross_entropy(logits_BTV.flatten(0, 1), batch.labels_BT.flatten()).backward()
        self.logits_BTV = logits_BTV.detach()
        self._gradients = {name: gradient(one).numpy() for name, one in model.named_parameters()}
        self._folder.mkdir()
        model.config.save_pretrained(self._folder)

    def deviation(self, gradients: Mapping[str, torch.Tensor]) -> float:
        """Of a directory's gradients, which transformers reads as if they were weights: its modules have other names
        for them, and some in one tensor."""
        save_file(dict(gradients), self._folder / WEIGHTS)
        found = {name: one.detach().numpy() for name, one in _loaded(self._folder).named_parameters()}
        return tensor_deviation(found, self._gradients, FLOOR).deviation


def _loaded(folder: Path) -> Any:
    """AssertionError unless transformers finds all that it looks for there, and nothing else."""
    from transformers import AutoModelForCausalLM

    how = {"dtype": torch.float32, "attn_implementation": "eager"}
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **how)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not told[what], f"transformers loads {folder.name}, and has {what}: {told[what]}"
    return model.eval()


@contextmanager
def _seen_logits() -> Iterator[list[torch.Tensor]]:
    """Those that a loss is made of inside, (N, V)."""
    seen: list[torch.Tensor] = []

    def loss_sum(logits_NV: torch.Tensor, *others: Any) -> torch.Tensor:
        seen.append(logits_NV.clone())
        return cross_entropy_sum(logits_NV, *others)

    with (
        patch.object(sliced_loss, "cross_entropy_sum", loss_sum),
        patch.object(cross_entropy, "cross_entropy_sum", loss_sum),
    ):
        yield seen


def _mixed_gradients(job: Job, tp: int, fleet: Standing, folder: Path) -> dict[str, np.ndarray]:
    """By logical name, of what is trained. The checkpoint after the step lies in `folder`."""
    units = len(architecture(job.dimensions).units)
    native = provider(job.dimensions) == NATIVE
    cut = 2 * ceil(units / 4) if native else units // 2  # behind attention and before its MLP, where these are units
    mixed = plan(pipeline(2, (n2 if tp == 2 else n1)(0, cut), a1(cut, units)))
    run = fleet.train(job, mixed, weights=folder / "in", save_to=folder / CHECKPOINTS, capture=[0])
    return run.gradients(0)


def _exported(job: Job, stored: HfFolder, folder: Path) -> HfFolder:
    assert isinstance(job.dimensions, HfModel)
    export(ResumePoint(folder, 1), job.dimensions, stored.beside, folder / "out", "hf", None)
    return HfFolder(folder / "out")


def _is_same(one: HfFolder, other: HfFolder, ties: Mapping[str, str]) -> bool:
    """Bit by bit. Ties may be left out."""
    names = one.tensors.keys() | other.tensors.keys()
    here, there = HfReader(one), HfReader(other)
    return all(
        torch.equal(_bits(here.get(name)), _bits(there.get(name)))
        if name in one.tensors and name in other.tensors
        else name in ties
        for name in names
    )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def _fault(found: Card, wanted: _Theirs, exported: Path) -> str:
    for what in ("logits", "gradients", "mixed", "mixed_vs_one"):
        if not (deviation := getattr(found, what)) <= LIMIT:
            return f"{what} deviate by {deviation:.1e}"
    if not found.bit_equal:
        return "the export has other bits than the directory"
    with torch.no_grad():
        back_BTV = _loaded(exported)(wanted.tokens_BT).logits
    return "" if torch.equal(back_BTV, wanted.logits_BTV) else "transformers has other logits of the export"


def _deviation(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())
