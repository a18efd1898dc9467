"""The page of `benchmarks.scale`: a table, a plot and what they assume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from balancer.plan.equal import equal_pipelines
from balancer.search.ledger import ledger
from balancer.simulate.simulate import Prediction

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, PANEL = 860, 300, 50, 40, 44, 200
COLORS = {25: "#c2571a", 100: "#1f6f8b"}
LOST = "bubble", "exposed_link", "rounding", "update"
"""Terms of the ledger that have a column."""
LEAST = 0.5
"""Where the axis of efficiencies begins."""


@dataclass(frozen=True)
class Point:
    """`mixed` is a step of all together, `alone` tokens per second of each family; 0 where it cannot hold the model."""

    model: str
    chips: int
    gbit_per_s: int
    mixed: Prediction | None
    alone: tuple[float, ...]

    @property
    def efficiency(self) -> float:
        """0 where no plan fits, or a family has none by itself."""
        return self.mixed.tokens_per_s / sum(self.alone) if self.mixed and all(self.alone) else 0.0

    @property
    def ideal(self) -> float:
        return self.mixed.efficiency_vs_ideal if self.mixed else 0.0


def write_page(path: Path, points: Sequence[Point]) -> None:
    """And its plot, in images/ beside it."""
    plot = path.parent / "images" / f"{path.stem}.svg"
    plot.write_text(svg(points), encoding="utf-8")
    path.write_text(page(points, f"images/{plot.name}"), encoding="utf-8")


def page(points: Sequence[Point], plot: str) -> str:
    rows = "\n".join(map(_row, points))
    return f"""# At scale, in simulation

What mixing would cost on hundreds and thousands of chips. Nothing of this was measured: it is the simulator's step of
plans that a simple rule makes, by data sheets alone. `python -m benchmarks.scale --page docs/scale.md` writes this
page.

![Efficiency by model, number of chips and bridge]({plot})

Half of the chips are A800-80G, a quarter each Ascend 910B2 and Kunlun P800, eight to a host. Efficiency is the speed of
all together over the sum of what each family does alone with the same global batch; ideal is over all chips that never
wait. Where a family cannot hold the model by itself there is no efficiency, and the mix is what makes the run possible.
The last columns say what the step lost, as parts of it; the rest is a tp that is not the fastest by the sheets.

| model | chips | bridge Gbit/s | plan | efficiency | ideal | bubble | links and sync | rounding | update |
|---|---:|---:|---|---:|---:|---:|---:|---:|---:|
{rows}

## What is assumed

- Chips compute by data sheets: A800 and 910B2 by the shapes of their kernels ([how](design/cost.md)), P800, of which
  no such figures are public, at its peak times its `efficiency` (`configs/chips/`), which flatters it beside them;
  samples are of 4,096 tokens, arithmetic is bfloat16, and nobody fails.
- A step has 1,024 samples on 256 and 1,024 chips, and 4,096 on 8,192: 4 and 17 million tokens.
- A host's network to other families carries what the table says each way, for all its links together, and a message is
  50 microseconds on its way. Inside a family stages and copies meet over the chips' own interconnect, which flatters
  families of many hosts: their own network is not modelled.
- The rule: tp 8, sequence parallel, selective recompute, 1F1B, one sequence at a time, with as few stages as hold the
  model by the memory model; either pipelines inside each family, or all of them through all families, whichever steps
  faster. Alone and together follow the same rule. The balancer's search may do better than it.
- Copies that sum gradients inside a family hold buffers for each other chip that they do it with, which is much on
  A800: with hundreds of copies that, and not the model itself, asks for more stages. Full recompute, which the rule
  does not use, would let some families hold a model that here they cannot.
- Gradients are summed in float32, once over each pair of families, and hide behind the last backward alone.
- One copy of a unit takes its gradients from all others in its family at once. A layer's experts are one unit, of 7.5
  billion parameters in 480B-A35B: there is room for few copies, and on 8,192 chips pipelines through all families would
  have more stages than the model has units.
"""


def _row(point: Point) -> str:
    if point.mixed is None:
        return f"| {point.model} | {point.chips:,} | {point.gbit_per_s} | none fits | | | | | | |"
    terms = ledger(point.mixed)
    lost = " | ".join(f"{max(0.0, terms[term]):.1%}" for term in LOST)
    efficiency = f"{point.efficiency:.3f}" if point.efficiency else ""
    return (
        f"| {point.model} | {point.chips:,} | {point.gbit_per_s} | {_shape(point.mixed)} | {efficiency} | "
        f"{point.ideal:.3f} | {lost} |"
    )


def _shape(step: Prediction) -> str:
    """Such as "32 pipelines of 2 nvidia, 1 ascend, 1 kunlun"; one for each kind."""
    kinds: dict[str, int] = {}
    for numbers in equal_pipelines(step.plan):
        pools = [stage.pool for stage in step.plan.pipelines[numbers[0]].stages]
        stages = ", ".join(f"{pools.count(pool)} {pool}" for pool in dict.fromkeys(pools))
        kinds[stages] = kinds.get(stages, 0) + len(numbers)
    return "; ".join(f"{count} of {stages}" for stages, count in kinds.items())


def svg(points: Sequence[Point]) -> str:
    """A panel for each model, a line for each bridge; efficiency over the ideal where there is no other."""
    models = list(dict.fromkeys(point.model for point in points))
    own = ([point for point in points if point.model == model] for model in models)
    panels = "".join(_panel(model, each, number) for number, (model, each) in enumerate(zip(models, own, strict=True)))
    told = ", ".join(
        f"{gbit} Gbit/s {word}" for (gbit, _), word in zip(COLORS.items(), ("orange", "blue"), strict=True)
    )
    told += ": solid over what the families do alone, dashed over the ideal; by number of chips"
    legend = f'<text x="{LEFT}" y="{HEIGHT - 6}">{told}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="#333"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{panels}{legend}</svg>\n'
    )


def _panel(model: str, points: Sequence[Point], number: int) -> str:
    left = LEFT + number * PANEL
    sizes = list(dict.fromkeys(point.chips for point in points))
    at = {chips: left + 20 + place * (PANEL - 70) / max(1, len(sizes) - 1) for place, chips in enumerate(sizes)}
    parts = [f'<text x="{left}" y="{TOP - 14}" font-weight="bold">{model}</text>']
    for tenth in range(round(LEAST * 10), 11):
        y = _y(tenth / 10)
        parts.append(f'<path d="M{left} {y:.1f}h{PANEL - 30}" stroke="#ddd"/>')
        if number == 0:
            parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    parts += [f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{n:,}</text>' for n, x in at.items()]
    for gbit, color in COLORS.items():
        own = [point for point in points if point.gbit_per_s == gbit]
        parts.append(_line([(at[one.chips], one.efficiency) for one in own if one.efficiency], color, ""))
        parts.append(_line([(at[one.chips], one.ideal) for one in own if one.ideal], color, ' stroke-dasharray="4 4"'))
    return "".join(parts)


def _line(values: Sequence[tuple[float, float]], color: str, style: str) -> str:
    if not values:
        return ""
    path = "L".join(f"{x:.1f} {_y(value):.1f}" for x, value in values)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{_y(value):.1f}" r="3" fill="{color}"/>' for x, value in values)
    return f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"{style}/>{dots}'


def _y(value: float) -> float:
    room = HEIGHT - TOP - BOTTOM
    return TOP + room * (1 - (max(value, LEAST) - LEAST) / (1 - LEAST))
