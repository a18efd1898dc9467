"""How a plan and its prediction are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from backends.sizes import size_text
from balancer.plan.equal import alike, equal_pipelines, named, numbered
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from balancer.schedule.grid import format_grid
from balancer.schedule.lowering import actions_of
from balancer.search.ledger import efficiency
from hetero.cli.explained import explanation, worth_as_data
from hetero.cli.profiled import told
from hetero.models.registry import provider, served

if TYPE_CHECKING:
    from balancer.simulate.simulate import Prediction
    from hetero.job.job import Job
    from hetero.job.planning.plan_job import Planned
    from hetero.job.planning.worth import PoolWorth


def as_data(job: Job, planned: Planned, worth: Sequence[PoolWorth] = ()) -> str:
    """One JSON object: the plan as `plan.json` has it, the prediction, why it was chosen, what lost, what the choice
    leaves out, and what each pool is worth as far as that was asked."""
    data = {
        "job": job.name,
        "emulated": job.emulated,
        "model": {"told": job.model.told(), "provider": provider(job.model.resolve())},
        "plan": json.loads(planned.plan.to_json()),
        "prediction": _figures(planned.prediction) | ({"band": asdict(planned.band)} if planned.band else {}),
        "origins": _origins(planned),
        "memory": _memory(planned),
        "links": _coded_links(job, planned),
        "runners_up": [
            {"plan": json.loads(other.to_json()), "prediction": _figures(prediction), "why": why}
            for other, prediction, why in planned.runners_up
        ],
        "why": explanation(planned),
        "worth": worth_as_data(worth),
        "idle": [asdict(idle) for idle in planned.idle],
        "notes": planned.notes,
    }
    return json.dumps(data, indent=2)


def print_planned(job: Job, planned: Planned, console: Console | None = None) -> None:
    console = console or Console()
    console.print(
        f"model {job.model.told()}, {served(job.model.resolve())}", soft_wrap=True, markup=False, highlight=False
    )
    console.print(_stages(planned))
    for pool in sorted(planned.plan.pools()):
        limit = planned.prediction.scenario.topology.pool(pool).memory_limit
        console.print(f"a chip of {pool} has {limit}", soft_wrap=True, markup=False, highlight=False)
    for numbers in equal_pipelines(planned.plan):
        pipeline = planned.plan.pipelines[numbers[0]]
        begin = f"\n{named(numbers)}: {pipeline.micro_batches} micro-batches of {pipeline.micro_batch}"
        console.print(begin, highlight=False)
        grid = format_grid(actions_of(pipeline, planned.plan.schedule))
        console.print(grid, soft_wrap=True, markup=False, highlight=False)
    _print_coded_links(_coded_links(job, planned), console)
    prediction = planned.prediction
    figures = f"{prediction.step_s:.4g} s, {prediction.tokens_per_s:,.0f} tokens/s"
    console.print(f"\npredicted step {figures} ({_labelled(job, planned)})", soft_wrap=True)
    if (band := planned.band) is not None:
        mean, most = f"{band.mean_s:.4g} s in the mean", f"{band.low_s:.4g} to {band.high_s:.4g} s"
        console.print(f"as actions differ {mean}, 9 of 10 steps {most}", highlight=False)
    if planned.profile.rows:
        for pool, origin in _origins(planned).items():
            console.print(Text(f"  {pool}: {origin}"), soft_wrap=True)
    for name, value in efficiency(prediction).items():
        console.print(f"  {name} {round(value, 3) + 0.0:.3f}")
    _print_runners_up(planned, console)
    for note in planned.notes:
        console.print(f"\nnote: {note}", soft_wrap=True, markup=False, highlight=False)


def _labelled(job: Job, planned: Planned) -> str:
    """By what the prediction is."""
    measured = planned.profile.noise().keys()
    if planned.plan.pools() <= measured:
        return "as measured"
    if planned.plan.pools() & measured:
        return "as measured in part"
    return "emulated chips at their datasheet speed" if job.emulated else "by datasheet"


def _origins(planned: Planned) -> dict[str, str]:
    """By pool, where the times of its chips come from."""
    noise = planned.profile.noise()
    return {
        pool: f"{told(planned.profile)}, {noise[pool].spread:.1%} from one action to the next"
        if pool in noise
        else "data sheet"
        for pool in sorted(planned.plan.pools())
    }


def _stages(planned: Planned) -> Table:
    table = Table(title=f"plan, schedule {planned.plan.schedule}", title_justify="left")
    asks = any(stage.strategies() for _, stage in planned.plan.stages())
    columns = (
        "pipeline",
        "share",
        "stage",
        "pool",
        "tp",
        "units",
        "precision",
        *["strategies"] * asks,
        "memory/chip",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("pool", "units", "precision", "strategies") else "right")
    for numbers in equal_pipelines(planned.plan):
        pipeline = planned.plan.pipelines[numbers[0]]
        for s, stage in enumerate(pipeline.stages):
            most = max(planned.memory_bytes(p, s) for p in numbers)  # they own different units
            host = max(planned.host_bytes(p, s) for p in numbers)
            size = f"{size_text(most)} + {size_text(host)} of its host" if host else size_text(most)
            strategies = [_strategies(stage)] * asks
            table.add_row(*_row(numbered(numbers), pipeline, s, stage), *strategies, size)
    return table


def _memory(planned: Planned) -> list[dict[str, Any]]:
    """What one chip of each stage needs, and what it has, by whom."""
    pools = planned.prediction.scenario.topology
    return [
        {
            "pipeline": p,
            "stage": s,
            "need_bytes": planned.memory_bytes(p, s),
            "host_bytes": planned.host_bytes(p, s),
            "limit_bytes": pools.pool(stage.pool).memory_bytes,
            "limit_told_by": pools.pool(stage.pool).memory_told_by,
        }
        for (p, s), stage in planned.plan.stages()
    ]


def _row(name: str, pipeline: PipelinePlan, s: int, stage: StagePlan) -> list[str]:
    units = ", ".join(f"{start}-{stop - 1}" for start, stop in stage.units)
    return [name, str(pipeline.share), str(s), stage.pool, str(stage.tp), units, str(stage.precision)]


def _strategies(stage: StagePlan) -> str:
    """What the stage asks for beyond the plain way, such as "recompute full, sequence_parallel"."""
    asked = stage.strategies().items()
    return ", ".join(name if value is True else f"{name} {value}" for name, value in asked)


def _coded_links(job: Job, planned: Planned) -> list[dict[str, Any]]:
    """Links with a codec: which for each direction, and the bytes that it leaves as a ratio."""
    links = [(link, job.bridge.codec_between(*link.between)) for link in planned.prediction.scenario.topology.links]
    return [
        {
            "between": list(link.between),
            **codec.model_dump(),
            "activation_ratio": link.activation_ratio,
            "gradient_ratio": link.gradient_ratio,
        }
        for link, codec in links
        if {codec.activation, codec.gradient} != {"none"}
    ]


def _print_coded_links(links: list[dict[str, Any]], console: Console) -> None:
    if links:
        console.print("\nlinks with a codec, and the bytes that it leaves:")
    for link in links:
        ways = ", ".join(f"{way} {link[way]} ({link[f'{way}_ratio']:.2f})" for way in ("activation", "gradient"))
        console.print(f"  {' - '.join(link['between'])}: {ways}", soft_wrap=True, markup=False, highlight=False)


def _print_runners_up(planned: Planned, console: Console) -> None:
    if planned.runners_up:
        console.print("\nnot chosen:")
    for plan, prediction, why in planned.runners_up:
        console.print(
            f"  {prediction.step_s:.4g} s  {_shape(plan)}  ({why})", soft_wrap=True, markup=False, highlight=False
        )


def _shape(plan: Plan) -> str:
    """Such as "8 x 4: a tp2 (x 3) > b tp1 | 6: c tp4": share and stages, of equal ones once."""
    shapes = [f"{pipeline.share}: {_row_of_stages(pipeline)}" for pipeline in plan.pipelines]
    return " | ".join(
        (f"{len(numbers)} x " if len(numbers) > 1 else "") + shapes[numbers[0]] for numbers in alike(shapes)
    )


def _row_of_stages(pipeline: PipelinePlan) -> str:
    rows = [(name, len(list(row))) for name, row in groupby(f"{s.pool} tp{s.tp}" for s in pipeline.stages)]
    return " > ".join(f"{name} (x {count})" if count > 1 else name for name, count in rows)


def _figures(prediction: Prediction) -> dict[str, Any]:
    return {
        "step_s": prediction.step_s,
        "tokens_per_s": prediction.tokens_per_s,
        "sync_s": prediction.sync_s,
        "efficiency": efficiency(prediction),
    }
