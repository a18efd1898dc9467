"""What a model is compared with: transformers' own of the same weights, or another model of ours."""

from __future__ import annotations

from dataclasses import replace

import torch

from hetero.align.alignment import Alignment
from hetero.align.comparison import align
from hetero.align.errors import AlignError
from hetero.align.lacking import lacking
from hetero.align.ours import OurModel
from hetero.align.source import Source, source
from hetero.align.theirs import transformers_trace
from hetero.align.tolerance import TOLERANCES, Tolerance
from hetero.models.batch import Batch
from hetero.models.registry import architecture

TRANSFORMERS = "transformers"


def aligned(
    model: str,
    against: str,
    dtype: str = "float32",
    reference_dtype: str | None = None,
    tolerance: float | None = None,
    samples: int = 2,
    length: int = 64,
    seed: int = 0,
) -> Alignment:
    """The model, a directory or RUN_DIR[@STEP], against "transformers" or another such one, on tokens that `seed` makes
    up. Samples are no longer than the model is made for. `tolerance` stands in for the table's. Raises errors that
    explain themselves."""
    ours, reference_dtype = source(model, "--model"), reference_dtype or dtype
    limits = _limits((dtype, reference_dtype), tolerance)
    if early := lacking(ours):
        return Alignment(ours.name, against, dtype, limits, [], early)
    reference = ours if against == TRANSFORMERS else source(against, "--against")
    if reference is not ours and (lost := reference.lacking()):
        rule, remedy = "; ".join(lost.values()), "compare with a model that is whole"
        raise AlignError("--against", against, rule, remedy)
    check_comparable(ours, reference)
    batch, wide = made_up(ours, samples, length, seed), getattr(torch, reference_dtype)
    if against == TRANSFORMERS:
        trace = transformers_trace(reference, wide, batch)
    else:
        trace = OurModel(reference, wide).trace(batch)
    return align(ours, reference, trace, against, batch, dtype, limits)


def check_comparable(ours: Source, reference: Source) -> None:
    """AlignError unless units and tensors are as many and as large."""
    wanted, found = ours.shapes, reference.shapes
    odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if odd:
        here, there = (shapes.get(odd[0], "not there") for shapes in (wanted, found))
        rule = f"{odd[0]} is {there}, and the model's {here}"
        raise AlignError("--against", reference.name, rule, "compare models of one architecture and size")


def made_up(ours: Source, samples: int, length: int, seed: int) -> Batch:
    """Tokens of the model's vocabulary, each as likely; of each the next is the label."""
    longest = architecture(ours.description).longest
    length = length if longest is None else min(length, longest)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, ours.description.vocab, (samples, length + 1), generator=generator)
    return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


def _limits(dtypes: tuple[str, ...], asked: float | None) -> Tolerance:
    coarser = max((TOLERANCES[name] for name in dtypes), key=lambda limits: limits.alone)
    return coarser if asked is None else replace(coarser, alone=asked, whole=asked)
