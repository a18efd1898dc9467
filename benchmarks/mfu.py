"""Model FLOPs utilisation on one chip, where the rest of the peak went, and what others reach on the same chip.

    python -m benchmarks.mfu [--json] [--only 1b 3b 8b] [--layers N] [--chip NAME] [--stage KEY=VALUE ...]

Models of the size of Llama's 1B, 3B and 8B in bfloat16, 8 sequences of 4096 a step, on the first accelerator of this
host. For each, one after another, so that each has the chip for itself: our engine with one stage, a plain loop over
our modules, and transformers' LlamaForCausalLM under torch.compile (benchmarks/mfu_peers.py). Steps are medians.

- `mfu_8b` counts 6 FLOPs for each weight and token, the half of attention's square that the causal mask leaves, and
  nothing twice; `mfu_8b_whole_square` counts all of the square;
- `mfu_8b_vs_plain`, `mfu_8b_vs_transformers`: our tokens per second over theirs. `mfu_8b_transformers_checkpointed`
  is 1 where that fits only with each layer computed again;
- `mfu_8b_products` and so on: the terms of the waterfall (docs/monitoring.md), which multiply to `mfu_8b`, by the
  calibration of the same chip.

What does not fit, or fails, is told on stderr and has no figures. `--layers` takes the first layers of what is too
large, and says so by `mfu_8b_layers`; `--stage` adds what a plan may say of a stage, such as `recompute=full`. Where
there is no accelerator, a tiny model goes the same way on the CPU, and the figures are void.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import yaml

from backends.chip import ChipSpec, load_chip
from backends.errors import BackendError, ChipError
from backends.identify import identify
from backends.probe import detect
from balancer.plan.plan import PipelinePlan, Plan, StagePlan
from benchmarks.mfu_peers import CheckpointedTransformers, Transformers, alone
from benchmarks.peers import PlainLoop, Turn
from benchmarks.report import print_report
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import Prepared, prepare
from hetero.errors import explains_itself, render
from hetero.job.job import Job
from hetero.job.planning.computing import pool_work
from hetero.job.planning.plan_job import plan_job
from hetero.job.planning.problem import workload
from hetero.job.run.spec import run_spec
from hetero.models.dimensions import Dimensions
from hetero.models.flops import masked_flops
from hetero.monitoring.waterfall import Computing, TimeSpent, waterfall
from hetero.words.spec import CalibrationSpec, RunSpec
from hetero.words.step import HostStep

Found = TypeVar("Found")
LLAMA = {"kv_heads": 8, "vocab": 128_256, "rope_theta": 500_000.0}
MODELS = {
    "1b": Dimensions(layers=16, hidden=2048, heads=32, ffn=8192, tie_embeddings=True, **LLAMA),
    "3b": Dimensions(layers=28, hidden=3072, heads=24, ffn=8192, tie_embeddings=True, **LLAMA),
    "8b": Dimensions(layers=32, hidden=4096, heads=32, ffn=14336, **LLAMA),
}
TINY = Dimensions(layers=2, hidden=128, heads=4, kv_heads=2, ffn=352, vocab=512)
PRECISION = "bfloat16"
WARM_UP = 2
SAME_LOSS = 0.02
"""Ours and the plain loop's begin with the same values, on the same text, and differ by how they round."""
NOTHING = "nothing could be measured"
NO_CHIP = "no accelerator here: a tiny model on the CPU shows that the command works, and nothing of a chip"


@dataclass(frozen=True)
class Setting:
    """One model on one chip; `stage` is what the plan says of it."""

    name: str
    dims: Dimensions
    family: str
    chip: str
    seq_len: int
    batch: int
    peak_flops: float
    stage: Mapping[str, Any]

    @property
    def job(self) -> Job:
        return Job.model_validate(
            {
                "model": {"dimensions": self.dims.model_dump()},
                "data": {"source": "python-stdlib", "tokenizer": "bytes", "seq_len": self.seq_len},
                "train": {"steps": 10_000, "global_batch": self.batch, "micro_batch": 1, "precision": PRECISION},
                "pools": {"chip": {"family": self.family, "chip": self.chip, "count": 1}},
                "monitor": {"trace_every": 0},
            }
        )

    def spec(self, text: Prepared) -> RunSpec:
        """Raises the balancer's errors, such as that it does not fit."""
        units = len(workload(self.job).units)
        stage = StagePlan(**{"pool": "chip", "units": (0, units), **self.stage})
        plan = plan_job(self.job, given=Plan(pipelines=(PipelinePlan(share=self.batch, stages=(stage,)),))).plan
        return run_spec(self.job, fleet_of(self.job.pools), plan, text, 1.0)

    @property
    def flops(self) -> float:
        """Of a step."""
        return 3 * self.batch * sum(unit.forward_flops for unit in workload(self.job).units)

    @property
    def whole_square(self) -> float:
        """By how much more they are with the half of attention's square that the mask takes away."""
        return 1 + 3 * self.batch * sum(masked_flops(self.dims, self.seq_len)) / self.flops

    @property
    def cut(self) -> dict[str, float]:
        """The number of layers, where it is not the model's own."""
        own = MODELS.get(self.name, self.dims).layers
        return {} if self.dims.layers == own else {"layers": self.dims.layers}


def settings(names: Sequence[str], chip: str | None, layers: int | None, stage: Mapping[str, Any]) -> list[Setting]:
    """Raises ChipError for an accelerator whose peak nobody knows."""
    there = next(found for found in detect() if found.chips)
    if there.family == "cpu":
        return [Setting("tiny", TINY, "cpu", "cpu", 128, 4, _peak_flops(load_chip("cpu")), stage)]
    sheet = load_chip(chip or _named_by_itself(there.family, there.names))
    if sheet.family != there.family:
        raise ChipError("--chip", sheet.name, f"the chips here are of family {there.family}", "Name one of these.")
    chosen = {name: _at_most(MODELS[name], layers) for name in names}
    return [
        Setting(name, dims, there.family, sheet.name, 4096, 8, _peak_flops(sheet), stage)
        for name, dims in chosen.items()
    ]


def _at_most(dims: Dimensions, layers: int | None) -> Dimensions:
    return dims if layers is None else dims.model_copy(update={"layers": min(layers, dims.layers)})


def _peak_flops(sheet: ChipSpec) -> float:
    sheet.flops_per_s(PRECISION)  # raises ChipError where the chip lacks it
    return sheet.peak_flops[PRECISION]


def _named_by_itself(family: str, device_names: Sequence[str]) -> str:
    try:
        return identify(family, device_names)
    except ChipError as error:
        remedy = f"Give --chip a name of configs/chips, or add a data sheet with peak_tflops. {error.remedy}"
        raise ChipError("--chip", error.value, f"an MFU needs the chip's peak: {error.rule}", remedy) from None


class Bench:
    """Takes what can be had of each model, and tells what cannot."""

    def __init__(self, text: Prepared, steps: int) -> None:
        self._text, self._steps = text, WARM_UP + steps
        self.told: list[str] = []
        self.void: str | None = None

    def figures(self, setting: Setting) -> dict[str, float]:
        spec = self._tried(setting, "plan", lambda: setting.spec(self._text))
        ours = spec and self._tried(setting, "engine", lambda: _engine(setting, spec, self._steps))
        if not spec or not ours:
            return {}
        rows, steps = ours
        step_s = median(step.end - step.start for step in steps[WARM_UP:])
        mfu = setting.flops / setting.peak_flops / step_s
        figures = {"": mfu, "whole_square": mfu * setting.whole_square, "step_s": step_s, **setting.cut}
        computing = pool_work(setting.job, spec.plan, rows)["chip"].computing
        figures |= self._tried(setting, "terms", lambda: _terms(mfu, steps[WARM_UP:], computing)) or {}
        figures |= dict(self._others(setting, spec, _loss(steps[0]), step_s))
        return {"_".join(filter(None, ("mfu", setting.name, name))): figure for name, figure in figures.items()}

    def _others(self, setting: Setting, spec: RunSpec, loss: float, step_s: float) -> Iterator[tuple[str, float]]:
        """What comes of the others' steps beside ours, whose first loss is told."""
        if plain := self._trained(setting, spec, PlainLoop):
            yield "vs_plain", _step_s(plain) / step_s
            if not math.isclose(loss, plain[0].loss, rel_tol=SAME_LOSS):
                self.void = f"{setting.name}: the first loss is {loss:.4f}, and {plain[0].loss:.4f} of the plain loop"
        for kind in (Transformers, CheckpointedTransformers):
            if theirs := self._trained(setting, spec, kind):
                yield "vs_transformers", _step_s(theirs) / step_s
                yield "transformers_checkpointed", float(kind.checkpointing)
                return

    def _trained(self, setting: Setting, spec: RunSpec, kind: type[PlainLoop]) -> list[Turn] | None:
        return self._tried(setting, kind.__name__, lambda: alone(kind, spec, self._steps))

    def _tried(self, setting: Setting, what: str, make: Callable[[], Found]) -> Found | None:
        try:
            return make()
        except Exception as error:
            said = render(error) if explains_itself(error) else f"{type(error).__name__}: {error}".partition("\n")[0]
            self.told.append(f"{setting.name}: {what}: {said}")
            return None


def _engine(setting: Setting, spec: RunSpec, steps: int) -> tuple[list[dict[str, Any]], list[HostStep]]:
    """What calibration says of the chip, and each step."""
    asked = CalibrationSpec(
        model=spec.model, pools=spec.pools, tensor_parallel={"chip": (1,)}, seq_len=setting.seq_len,
        micro_batch=1, precisions={"chip": PRECISION}, time_scale=1.0,
    )  # fmt: skip
    reports: list[HostStep] = []
    with Session.start(fleet_of(setting.job.pools), LocalAgents()) as session:
        rows = session.calibrate(asked)
        session.configure(spec)
        session.run(steps, lambda _, hosts: reports.extend(hosts))
    return rows, reports


def _terms(mfu: float, steps: Sequence[HostStep], computing: Computing) -> dict[str, float]:
    whole_s = sum(step.end - step.start for step in steps)
    computed_s = sum(step.forward_s + step.backward_s + step.weight_s for step in steps)
    update_s, bubble_s, bridge_s = (
        sum(getattr(step, name) for step in steps) for name in ("optimizer_s", "bubble_s", "bridge_wait_s")
    )
    host_s = max(0.0, whole_s - computed_s - update_s - bubble_s - bridge_s)
    spent = TimeSpent(computed_s, update_s, bubble_s, bridge_s, host_s)
    return {term.name.replace(" ", "_"): term.factor for term in waterfall(mfu, spent, computing)}


def _loss(step: HostStep) -> float:
    return step.totals.loss if step.totals else math.nan


def _step_s(turns: Sequence[Turn]) -> float:
    return median(turn.seconds for turn in turns[WARM_UP:])


def _field(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, yaml.safe_load(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), help="leave the others out")
    parser.add_argument("--steps", type=int, default=6, help="of each, after two that warm up")
    parser.add_argument("--layers", type=int, help="at most so many of each model")
    parser.add_argument("--chip", help="its data sheet in configs/chips, where it gives no name that one bears")
    parser.add_argument("--stage", nargs="+", type=_field, default=[], metavar="KEY=VALUE", help="fields of the plan")
    options = parser.parse_args()
    try:
        every = settings(options.only, options.chip, options.layers, dict(options.stage))
    except BackendError as error:
        print(render(error), file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(prepare(every[0].job.data, Path(folder)), options.steps)
        figures = {name: figure for setting in every for name, figure in bench.figures(setting).items()}
    print(*bench.told, sep="\n", end="\n" if bench.told else "", file=sys.stderr)
    void = NO_CHIP if every[0].family == "cpu" else bench.void
    print_report("mfu", figures, emulated=False, void=void if figures else NOTHING, quiet=options.json)


if __name__ == "__main__":
    main()
