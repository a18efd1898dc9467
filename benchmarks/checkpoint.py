"""What a save costs the steps that it is written beside, and what saving and loading take beside safetensors alone.

    python -m benchmarks.checkpoint [--json] [--rounds N]

`step_while_saving` is the mean step of one emulated chip with a save in flight in all of them over that without any.
Its disk is as slow as lets a save last some three steps (benchmarks/slow_disk.py), and its link to its host as slow as
lets the copy last half of one. Cases take turns in every round, and the figure is the
median over the rounds.

`save_vs_safetensors` is the time to write `FILES` pieces with their checksums, over that of safetensors' own
`save_file` of the same tensors to as many files; both until the bytes are on the disk. `load_vs_safetensors` is the
time to read every tensor with our reader over that with safetensors'. `directory_vs_safetensors` is the time in which
two owners of halves write a model's directory, rounded to bfloat16, over that of `save_file` of whole bfloat16 tensors
to as many files. Both take turns, and the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.offload import Case, job
from benchmarks.report import print_report
from bridge.layout.layout import TensorLayout
from bridge.rank import RankId
from hetero.checkpoint.durable import sync_folder
from hetero.checkpoint.hf_layout import HfLayout
from hetero.checkpoint.hf_weights import write_owned
from hetero.checkpoint.manifest import RunState
from hetero.checkpoint.pieces import CheckpointReader, write_piece
from hetero.checkpoint.store import CheckpointStore
from hetero.cluster.fleet import Programs
from hetero.cluster.host.agent import LocalAgents
from hetero.cluster.options import fleet_of
from hetero.cluster.session import Session
from hetero.data.source import prepare
from hetero.job.run.spec import fleet_links, run_spec
from hetero.layers.spec import TensorSpec
from hetero.models.as_hf import as_hf
from hetero.models.dimensions import Dimensions
from hetero.models.registry import architecture
from hetero.words.step import HostStep

FILES, TENSORS, ROWS, COLUMNS = 2, 12, 1024, 1024
STEPS, STEP_S, EVERY = 6, 3.0, 3
"""Of one visit: a save begins after every third step and is written in three. The first steps do not count."""
COPIED_STEPS, STATE_BYTES = 0.5, 12
"""How much of a step the chip's link to its host takes for the state, and that of a parameter."""
KINDS = ("parameter", "exp_avg", "exp_avg_sq")
OF_DIRECTORY = Dimensions(layers=2, hidden=1024, heads=8, kv_heads=4, ffn=2816, vocab=4096)


class Bench:
    """One emulated chip with a slow disk, which runs with and without saves."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        plain = Case(job(), "chip")
        self._scale = plain.time_scale * STEP_S / plain.prediction.step_s
        state = STATE_BYTES * sum(unit.parameters for unit in plain.problem.workload.units)
        self._job = job(1e-9 * state * self._scale / (COPIED_STEPS * STEP_S))
        self._case, self._folder, self._epoch, self.overran = Case(self._job, "chip"), folder, -1, 0
        self._text = prepare(self._job.data, folder)
        fleet = replace(
            fleet_of(self._job.pools, fleet_links(self._job)), programs=Programs(rank="benchmarks.slow_disk:main")
        )
        self._session = stack.enter_context(Session.start(fleet, LocalAgents()))

    def step_s(self, saving: bool) -> float:
        """The mean of the steps after the first save has begun, or would have."""
        self._epoch += 1
        place = self._folder / f"saved-{self._epoch}"
        plan = self._case.plan.model_copy(update={"epoch": self._epoch})
        told = self._job, self._session.fleet, plan, self._text, self._scale
        spec = run_spec(*told, checkpoints=place if saving else None)
        self._session.configure(spec.model_copy(update={"checkpoint_every": EVERY}))
        ends: list[float] = []

        def record(step: int, hosts: Sequence[HostStep]) -> None:
            ends.append(max(host.end for host in hosts))
            self.overran += step >= EVERY and any(host.overrun for host in hosts)

        self._session.run(EVERY + STEPS, record)
        shutil.rmtree(place, ignore_errors=True)
        return (ends[-1] - ends[EVERY - 1]) / STEPS


def while_saving(rounds: int) -> tuple[float, str | None]:
    """The ratio, and what makes it void."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(Path(folder), stack)
        bench.step_s(False)
        bench.overran = 0
        found = [(bench.step_s(False), bench.step_s(True)) for _ in range(rounds)]
        void = f"{bench.overran} steps overran their modelled time" if bench.overran else None
        return median(saving / alone for alone, saving in found), void


class Files:
    """The same tensors, in as many files, ours and safetensors' own."""

    def __init__(self, folder: Path) -> None:
        self._ours, self._theirs, self._step = CheckpointStore(folder / "ours"), folder / "theirs", 0
        self._state = [
            {f"{index}.{n}": {kind: torch.rand(ROWS, COLUMNS) for kind in KINDS} for n in range(TENSORS)}
            for index in range(FILES)
        ]
        self.nbytes = 4 * FILES * TENSORS * len(KINDS) * ROWS * COLUMNS
        self._theirs.mkdir()

    def save(self) -> None:
        self._step += 1
        pieces = []
        for index, state in enumerate(self._state):
            rank, layout = RankId("chip", index), TensorLayout.replicated((ROWS, COLUMNS), 1)
            places = dict.fromkeys(state, (layout, 0))
            pieces.append(write_piece(self._ours.piece_path(self._step, rank), rank, state, places))
        run = RunState(consumed_sequences=0, consumed_tokens=0, job_fingerprint="", plan={})
        self._ours.commit(self._step, run, pieces)

    def save_plainly(self) -> None:
        for index, state in enumerate(self._state):
            flat = {f"{name}/{kind}": tensor for name, kinds in state.items() for kind, tensor in kinds.items()}
            _save_file(flat, self._theirs / f"{index}-{self._step}.safetensors")
        sync_folder(self._theirs)

    def load(self) -> None:
        with CheckpointReader(self._ours, self._step) as reader:
            for name in sorted(reader.names()):
                for kind in KINDS:
                    torch.empty(ROWS, COLUMNS).copy_(reader.read(name, kind, ((0, ROWS), (0, COLUMNS))))

    def load_plainly(self) -> None:
        for index in range(FILES):
            with safe_open(self._theirs / f"{index}-{self._step}.safetensors", framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    torch.empty(ROWS, COLUMNS).copy_(file.get_tensor(key))

    def forget(self) -> None:
        """What was written before the last time."""
        self._ours.prune(1)
        for path in self._theirs.iterdir():
            if not path.stem.endswith(f"-{self._step}"):
                path.unlink()


class Directory:
    """A model's directory, by two owners and by safetensors."""

    def __init__(self, folder: Path) -> None:
        self._layout, self._ours, self._theirs = HfLayout(as_hf(OF_DIRECTORY), "bfloat16"), folder / "d", folder / "p"
        told = architecture(OF_DIRECTORY)
        specs = {spec.name: spec for unit in range(len(told.units)) for spec in told.tensors(unit, 2).values()}
        whole = {name: torch.rand(spec.layout.shape) for name, spec in specs.items()}
        self._places = [self._owned(specs, position) for position in (0, 1)]
        self._owners = [
            {name: {"parameter": whole[name][_box(*place)].clone()} for name, place in places.items()}
            for places in self._places
        ]
        self._shards = [
            {name: self._layout.map.write(name, whole.__getitem__).bfloat16() for name in shard.tensors}
            for shard in self._layout.shards
        ]

    def save(self) -> None:
        shutil.rmtree(self._ours, ignore_errors=True)
        for state, places in zip(self._owners, self._places, strict=True):
            write_owned(self._layout, self._ours, state, places)

    def save_plainly(self) -> None:
        shutil.rmtree(self._theirs, ignore_errors=True)
        self._theirs.mkdir()
        for number, shard in enumerate(self._shards):
            _save_file(shard, self._theirs / f"{number}.safetensors")
        sync_folder(self._theirs)

    def _owned(self, specs: Mapping[str, TensorSpec], position: int) -> dict[str, tuple[TensorLayout, int]]:
        """Of equal parts the first has one."""
        first = {name: [group[0] for group in spec.layout.replica_groups()] for name, spec in specs.items()}
        return {name: (spec.layout, position) for name, spec in specs.items() if position in first[name]}


def _box(layout: TensorLayout, position: int) -> tuple[slice, ...]:
    return tuple(slice(*bounds) for bounds in layout.region(position))


def _save_file(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def beside_safetensors(rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        files, directory = Files(Path(folder)), Directory(Path(folder))
        cases: Mapping[str, Callable[[], None]] = {
            "save": files.save,
            "save_plainly": files.save_plainly,
            "load": files.load,
            "load_plainly": files.load_plainly,
            "directory": directory.save,
            "directory_plainly": directory.save_plainly,
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds + 1):
            for name, run in cases.items():
                began = perf_counter()
                run()
                times[name].append(perf_counter() - began)
            files.forget()
        took = {name: median(found[1:]) for name, found in times.items()}
        return {
            "save_vs_safetensors": took["save"] / took["save_plainly"],
            "load_vs_safetensors": took["load"] / took["load_plainly"],
            "directory_vs_safetensors": took["directory"] / took["directory_plainly"],
            "save_gb_per_s": 1e-9 * files.nbytes / took["save"],
            "load_gb_per_s": 1e-9 * files.nbytes / took["load"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = beside_safetensors(2 * options.rounds - 1)
    ratio, void = while_saving(options.rounds)
    figures = {"step_while_saving": ratio, **files}
    print_report("checkpoint", figures, emulated=True, void=void, quiet=options.json)


if __name__ == "__main__":
    main()
