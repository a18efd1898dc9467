"""A shadow changes no bit of a run, finds what one family computes wrongly, and nothing where none does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hetero.data.source import Prepared
from hetero.models.tolerance import TOLERANCES
from hetero.words.options import ShadowOptions
from hetero.words.step import ShadowErrors
from tests.distributed.cases import ADAMW, Case, a1, a2, case_of, find, k1, k2, n1, n2, pipeline
from tests.distributed.documents import answered_questions
from tests.distributed.drifting import FROM_STEP
from tests.distributed.fleet import POOLS, Job, Run, Standing

SHADOWED = {
    "there and back, tied, in bfloat16": "nvidia",
    "float16 beside bfloat16 and float32": "kunlun",
    "adapters of some, backwards in two actions, tied, in bfloat16": "kunlun",
}
MORE = {
    "tp grows": "kunlun",
    "experts split, spread, and spread over rows": "kunlun",
    "the first stage frozen, and the head": "kunlun",
    "20 and 12, owners and warm-up by hand": "ascend",
    "optimizers in host memory": "ascend",
    "zero bubble": "nvidia",
    "chunks and tp mixed": "kunlun",
    "again and again": "nvidia",
    "tied, float16 beside float32": "nvidia",
    "rows of the stream, tp grows": "kunlun",
    "rows of the stream, backwards in two actions": "ascend",
    "adapters, tp 2, a cut in the middle": "nvidia",
    "adapters of latents and a shared expert, routers train also": "kunlun",
    "experts and routers frozen": "ascend",
    "pools that add up their own first": "ascend",
    "bfloat16": "kunlun",
    "float16": "ascend",
}


def _watched(job: Job, pool: str, every: int = 1) -> Job:
    return replace(job, train=job.train.model_copy(update={"shadow": ShadowOptions(every=every, pool=pool)}))


def _found(run: Run) -> list[ShadowErrors | None]:
    return [step.shadow for step in run.totals]


def _pieces(folder: Path) -> dict[str, bytes]:
    """By rank; each save ends the names of its own with other letters."""
    return {path.stem.rpartition("-")[0]: path.read_bytes() for path in folder.rglob("*.safetensors")}


def _is_undisturbed(fleet: Standing, case: Case, pool: str, folder: Path, text: Prepared | None = None) -> Run:
    """Each step of it but those that are skipped was computed again, and found to be right."""
    plain = fleet.train(case.job, case.plan, save_to=folder / "plain", text=text)
    run = fleet.train(_watched(case.job, pool), case.plan, save_to=folder / "shadow", text=text)
    assert (run.losses, run.norms) == (plain.losses, plain.norms)
    assert _pieces(folder / "shadow") == _pieces(folder / "plain") != {}
    assert plain.bytes_sent < run.bytes_sent
    assert all((step.shadow is None) == step.skipped for step in run.totals)
    told = [found for found in _found(run) if found is not None]
    assert told
    for found in told:
        assert found.by == pool != found.pool
        assert max(found.value, found.gradient or 0.0) <= found.tolerance, found
    assert any(found.value + (found.gradient or 0.0) > 0 for found in told), (
        "other groups sum in another order, and precisions round otherwise"
    )
    return run


@pytest.mark.parametrize(
    ("name", "pool"), [*SHADOWED.items(), *(pytest.param(*row, marks=pytest.mark.exhaustive) for row in MORE.items())]
)
def test_changes_no_bit_of_a_run_and_finds_nothing_wrong_with_it(
    name: str, pool: str, fleet: Standing, tmp_path: Path
) -> None:
    _is_undisturbed(fleet, find(name), pool, tmp_path)


def test_samples_of_several_documents_come_with_their_borders(
    fleet: Standing, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    case = case_of("packed", pipeline(4, k1(0, 2), n2(2, 3), a2(3, 6)), optimizer=ADAMW, steps=4)
    _is_undisturbed(fleet, case, "kunlun", tmp_path, answered_questions(tmp_path_factory.mktemp("questions")))


def test_stages_take_turns_and_then_the_next_micro_batch_of_each(fleet: Standing) -> None:
    case = case_of("turns", pipeline(2, n1(0, 2), a1(2, 6)), pipeline(2, k1(0, 3), k1(3, 6)), steps=12)
    found = _found(fleet.train(_watched(case.job, "ascend", every=2), case.plan))
    assert [step for step, one in enumerate(found) if one] == [1, 3, 5, 7, 9, 11]
    turns = [(one.pipeline, one.stage, one.pool, one.micro_batch) for one in found if one]
    assert turns == [
        (0, 0, "nvidia", 0), (1, 0, "kunlun", 0), (1, 1, "kunlun", 0),
        (0, 0, "nvidia", 1), (1, 0, "kunlun", 1), (1, 1, "kunlun", 1),
    ]  # fmt: skip
    assert {one.tolerance for one in found if one} == {TOLERANCES["float32"].alone}


def test_goes_on_under_another_plan_and_after_a_resume(fleet: Standing, tmp_path: Path) -> None:
    case = case_of("before", pipeline(4, n2(0, 3), a2(3, 6)), optimizer=ADAMW, steps=6)
    job, other = _watched(case.job, "ascend"), case_of("after", pipeline(4, a1(0, 2), k2(2, 6), micro_batch=2)).plan
    first = fleet.train(job, case.plan, until=2, save_to=tmp_path)
    second = fleet.train(job, other, start=2, until=4, live=True)
    third = fleet.train(job, other, start=2, until=4, begin_from=tmp_path)
    alone = fleet.train(job, case_of("alone", pipeline(4, a2(0, 6))).plan, start=2, until=4, begin_from=tmp_path)
    assert [one.pool for one in _found(first) if one] == ["nvidia", "nvidia"]
    assert [one.pool for one in _found(second) if one] == ["kunlun", "kunlun"]
    assert third.losses == second.losses
    assert _found(third) == _found(second)
    assert _found(alone) == [None, None], "there is nobody else whose stage it could compute"


@pytest.fixture(scope="module")
def drifting(text: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    pools = {name: replace(POOLS[name], count=2) for name in ("nvidia", "ascend")}
    folder = tmp_path_factory.mktemp("drifting")
    with Standing(text, folder, pools).up(rank="tests.distributed.drifting:main") as standing:
        yield standing


def _last(drifting: Standing, fault: str, by: str, precision: str = "float32") -> ShadowErrors:
    """What is found in the step in which it begins; before, nothing is."""
    case = case_of("two", pipeline(4, n1(0, 3), a2(3, 6)), precision=precision, steps=FROM_STEP + 1)
    written = case.plan.model_copy(update={"job_fingerprint": fault})
    *before, last = _found(drifting.train(_watched(case.job, by), written))
    assert len(before) == FROM_STEP
    assert all(one is not None and max(one.value, one.gradient or 0.0) <= one.tolerance for one in before)
    assert last is not None
    assert max(last.value, last.gradient or 0.0) > last.tolerance == TOLERANCES[precision].alone
    return last


@pytest.mark.parametrize(
    ("fault", "precision"),
    [("rope", "float32"), pytest.param("norms", "float32", marks=pytest.mark.exhaustive), ("norms", "bfloat16")],
)
def test_an_operator_that_goes_wrong_is_told_with_its_stage_and_unit(
    fault: str, precision: str, drifting: Standing
) -> None:
    last = _last(drifting, f"ascend {fault}", "nvidia", precision)
    assert (last.pool, last.stage, last.unit, last.unit_kind) == ("ascend", 1, 3, "attention")


def test_a_shadow_that_goes_wrong_itself_is_told_too(drifting: Standing) -> None:
    """Which of the two is wrong, a comparison cannot say."""
    last = _last(drifting, "ascend rope", "ascend")
    assert (last.by, last.pool, last.unit) == ("ascend", "nvidia", 1)
