"""A model against what a person names."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from hetero.align.alignment import Alignment
from hetero.align.comparison import align
from hetero.align.errors import AlignError
from hetero.align.given_text import GivenText, made_up, of_job
from hetero.align.lacking import lacking
from hetero.align.planned import PlannedReference
from hetero.align.reference import OurReference, Reference, TheirReference, check_comparable
from hetero.align.source import Source, source
from hetero.job.file.plan_file import read_plan
from hetero.job.job import Job
from hetero.models.tolerance import TOLERANCES, Tolerance
from hetero.paths import local

TRANSFORMERS = "transformers"
SAMPLES, LENGTH = 2, 64


@dataclass(frozen=True)
class AlignOptions:
    """How both sides compute, and on how much. `reference_dtype` None is `dtype`, or what a plan says; `tolerance`
    stands in for the table's. Tokens are made up from `seed` unless they are `of_job`; `samples` None is 2, a
    micro-batch of the job, or the batch of a plan, and `length` None is 64, or the job's."""

    dtype: str = "float32"
    reference_dtype: str | None = None
    tolerance: float | None = None
    samples: int | None = None
    length: int | None = None
    seed: int = 0
    of_job: bool = False


PLAIN = AlignOptions()


def aligned(model: str, against: str, options: AlignOptions = PLAIN, job: Job | None = None) -> Alignment:
    """The model, a directory or RUN_DIR[@STEP], against "transformers", another such one, or the plan of a `job` in a
    file. Raises errors that explain themselves."""
    ours, dtype = source(model, "--model"), options.dtype
    if early := lacking(ours):
        limits = _limits((dtype, options.reference_dtype or dtype), options.tolerance)
        return Alignment(ours.name, against, dtype, limits, [], early)
    reference = _reference(ours, against, options, job)
    limits = _limits((dtype, *reference.dtypes), options.tolerance)
    check_comparable(ours, reference.source)
    with tempfile.TemporaryDirectory() as folder:
        text = _text(ours, reference, options, job, Path(folder))
        trace = reference.trace(text)
        found = align(ours, reference.source, trace, against, text.batch, dtype, limits)
    return replace(found, emulated=is_plan(against))


def is_plan(against: str) -> bool:
    """Whether that is a plan's file, by its name."""
    return against.endswith(".json")


def _reference(ours: Source, against: str, options: AlignOptions, job: Job | None) -> Reference:
    if is_plan(against):
        plan = read_plan(local(against, "--against"), "--against")
        if job is None:
            rule, remedy = "a plan does not say what its pools are", "name the job that it is for: --job JOB.yaml"
            raise AlignError("--against", against, rule, remedy)
        return PlannedReference(ours, plan, job, options.reference_dtype)
    dtype = options.reference_dtype or options.dtype
    return TheirReference(ours, dtype) if against == TRANSFORMERS else OurReference(source(against, "--against"), dtype)


def _text(ours: Source, reference: Reference, options: AlignOptions, job: Job | None, folder: Path) -> GivenText:
    if reference.samples is not None and options.samples is not None:
        rule = f"a plan computes the whole batch of its job, of {reference.samples}"
        raise AlignError("--samples", options.samples, rule, "leave it out")
    samples = reference.samples or options.samples
    if not options.of_job:
        return made_up(ours, samples or SAMPLES, options.length or LENGTH, options.seed, folder)
    assert job is not None
    if options.length is not None:
        remedy = f"leave it out, or add --set data.seq_len={options.length}"
        raise AlignError("--seq-len", options.length, f"samples of the job have {job.data.seq_len} tokens", remedy)
    return of_job(job, ours, samples or job.train.micro_batch, folder)


def _limits(dtypes: tuple[str, ...], asked: float | None) -> Tolerance:
    coarser = max((TOLERANCES[name] for name in dtypes), key=lambda limits: limits.alone)
    return coarser if asked is None else replace(coarser, alone=asked, whole=asked)
