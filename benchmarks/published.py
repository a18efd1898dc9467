"""Steps and memory that others measured, against what our planner says of the same models, chips and layouts.

    python -m benchmarks.published --data CSV [--json] [--fit]

Judged is the simulator, by which plans are ranked in the end, with times of data sheets. Every model's steps are told
with constants that were fitted without that model's rows; `--fit` prints those of all rows, which are
`balancer.cost.kernels.FITTED`. A group of runs that differ in layout alone asks whether the layout that looks fastest
is: `regret` is what it takes longer than the best. Rows that no plan of ours says are counted, with the reason.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np

from balancer.cost.kernels import FITTED, Kernels
from benchmarks.published_cases import Case, cases
from benchmarks.published_fit import Residuals
from benchmarks.published_runs import Run, read_runs
from benchmarks.report import print_report

_FAR = 0.25
"""An error that is worth a line of its own."""


@dataclass(frozen=True)
class Told:
    """A measured step, and what the planner says of it who has never seen its model."""

    case: Case
    step_s: float

    @property
    def error(self) -> float:
        assert self.case.run.step_s is not None
        return self.step_s / self.case.run.step_s - 1


def without_their_model(measured: Sequence[Case]) -> list[Told]:
    """Each by the constants that all other models give."""
    models = [case.run.model for case in measured]
    residuals = Residuals.of(measured, [case.expected_s() for case in measured])
    fitted = {model: residuals.fitted(np.array([other != model for other in models])) for model in sorted(set(models))}
    return [Told(case, case.expected_s(fitted[case.run.model])) for case in measured]


def fit(measured: Sequence[Case], rounds: int = 3) -> Kernels:
    """By all rows."""
    kernels, every = FITTED, np.ones(len(measured), dtype=bool)
    for _ in range(rounds):
        kernels = Residuals.of(measured, [case.expected_s(kernels) for case in measured], kernels).fitted(every)
    return kernels


def regrets(steps: Iterable[Told]) -> list[float]:
    """Of each group with a choice: the measured step of what was told to be fastest over the best one. Where several
    are told to be as fast, their mean."""
    groups: dict[tuple[str, ...], list[Told]] = defaultdict(list)
    for told in steps:
        groups[told.case.run.group].append(told)
    found = []
    for group in groups.values():
        if len({told.case.layout for told in group}) < 2:
            continue
        random.Random(0).shuffle(group)
        fastest, best_s = min(told.step_s for told in group), min(float(told.case.run.step_s or 0) for told in group)
        chosen = [float(told.case.run.step_s or 0) for told in group if told.step_s <= fastest * (1 + 1e-9)]
        found.append(fmean(chosen) / best_s - 1)
    return found


def memory_figures(every: Sequence[Case]) -> dict[str, float]:
    """Of what was told of peaks, and of whether runs fit."""
    errors = [case.memory_bytes() / case.run.peak_bytes - 1 for case in every if case.run.peak_bytes]
    ran, out = (
        [case.fits for case in every if case.run.row.get("kind") == "measured" and case.run.ran_out is oom]
        for oom in (False, True)
    )
    found = {"memory_mape": fmean(map(abs, errors))} if errors else {}
    found |= {"fit_called_oom": 1 - fmean(ran)} if ran else {}
    found |= {"oom_called_fit": fmean(out)} if out else {}
    return found | {"memory_rows": len(errors), "oom_rows": len(out)}


def figures(steps: Sequence[Told], every: Sequence[Case], rows: int) -> dict[str, float]:
    errors, found = [abs(told.error) for told in steps], regrets(steps)
    return {
        "time_mape": fmean(errors),
        "time_median": median(errors),
        "regret_mean": fmean(found) if found else 0.0,
        "regret_max": max(found, default=0.0),
        "groups": len(found),
        **memory_figures(every),
        "rows": len(steps),
        "rows_left_out": rows - len(every),
        **of_sources(steps),
    }


def of_sources(steps: Sequence[Told]) -> dict[str, float]:
    """Rows and errors of each; errors that have one sign are a bias."""
    by_source: dict[str, list[float]] = defaultdict(list)
    for told in steps:
        by_source[told.case.run.source].append(told.error)
    found: dict[str, float] = {}
    for source, errors in sorted(by_source.items()):
        found |= {f"rows.{source}": len(errors), f"time_mape.{source}": fmean(map(abs, errors))}
        found[f"time_bias.{source}"] = fmean(errors)
    return found


def told_parts(case: Case) -> str:
    """What a step is told to be made of, by the constants of all rows."""
    prediction = case.predicted()
    busy_s = max(prediction.busy_s[0, stage] for stage in range(case.layout.pp))
    waits_s, rest_s = prediction.compute_s - busy_s, prediction.step_s - prediction.compute_s
    return f"{busy_s:.2f} s computing, {waits_s:.2f} waiting for other stages, {rest_s:.2f} sums, update and host"


def explain(steps: Sequence[Told], left_out: Mapping[tuple[str, str], int]) -> None:
    """The rows that are far off, the farthest first, and what is none of ours."""
    far = [told for told in steps if abs(told.error) > _FAR]
    for told in sorted(far, key=lambda told: -abs(told.error)):
        run, layout = told.case.run, told.case.layout
        lies = f"tp {layout.tp}, pp {layout.pp}, {layout.replicas} copies, micro-batches of {layout.micro_batch}"
        print(f"  {run.name}: {told.error:+.2f} ({run.row.get('model')} on {run.row['n_gpus']}, {lies})")
        print(f"    took {run.step_s:.2f} s, and is told to take {told.step_s:.2f}: {told_parts(told.case)}")
    for (source, reason), count in sorted(left_out.items()):
        print(f"  {source}: {count} rows left out, {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a CSV with the columns of published runs")
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--fit", action="store_true", help="print the constants that all rows give")
    options = parser.parse_args()
    runs = read_runs(options.data)
    read: list[tuple[Run, Case | str]] = list(cases(runs))
    every = [case for _, case in read if isinstance(case, Case)]
    measured = [case for case in every if case.run.step_s is not None]
    if options.fit:
        for name, value in fit(measured)._asdict().items():
            print(f"{name}={value:.4g}")
        return
    steps = without_their_model(measured)
    if not options.json:
        explain(steps, Counter((run.source, why) for run, why in read if isinstance(why, str)))
    print_report("published", figures(steps, every, len(runs)), emulated=False, quiet=options.json)


if __name__ == "__main__":
    main()
