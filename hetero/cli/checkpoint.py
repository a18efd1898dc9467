"""`hetero checkpoint`: what a run has saved, whether it is whole, and the same as a directory that others read."""

from __future__ import annotations

import json
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import Dtype, path_of, path_there

if TYPE_CHECKING:
    from hetero.checkpoint.resume import ResumePoint
    from hetero.checkpoint.summary import Summary
    from hetero.models.tuning import LoraOptions

RUN = "RUN_DIR[@STEP]"
Run = Annotated[
    str,
    typer.Argument(
        metavar=RUN, parser=path_there(RUN), help="A run's folder, whose last checkpoint is meant, or one of it."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]

checkpoint = typer.Typer(
    name="checkpoint", help="Look at checkpoints, check them, and take them elsewhere.", no_args_is_help=True
)


class ExportFormat(str, Enum):
    """What an export is written as."""

    hf = "hf"
    torch = "torch"
    megatron = "megatron"


class ImportFormat(str, Enum):
    """What an import is read as."""

    hf = "hf"
    megatron = "megatron"


@checkpoint.command()
def inspect(run: Run, as_json: AsJson = False) -> None:
    """Show what a checkpoint holds."""
    from hetero.checkpoint.summary import Summary

    point = _point(run)
    summary = Summary.of(point.store, point.step)
    if as_json:
        typer.echo(json.dumps({"checkpoint": str(point), **summary.as_data()}, indent=2))
    else:
        _print(point, summary)


@checkpoint.command()
def verify(run: Run, as_json: AsJson = False) -> None:
    """Read every byte of a checkpoint, or of all of a run's, and leave with 1 if one is not as it was written."""
    from hetero.checkpoint.errors import CheckpointError
    from hetero.checkpoint.resume import ResumePoint, split

    folder, step = split(run, RUN)
    store = ResumePoint(folder, 0).store
    there = sorted({*store.steps(), *(fault.step for fault in store.faults() if not fault.interrupted)})
    faults: dict[int, str] = {}
    for number in there if step is None else [step]:
        try:
            if store.verify(number, directory=True).directory:
                from hetero.checkpoint.hf_weights import verify_weights

                verify_weights(store, number)
        except CheckpointError as error:
            if not error.failure:
                raise
            faults[number] = error.rule
    if not there:
        raise CheckpointError(RUN, run, f"there is no checkpoint in {store.root}", "give a run that saved one")
    checked = there if step is None else [step]
    if as_json:
        typer.echo(json.dumps({"whole": [one for one in checked if one not in faults], "damaged": faults}, indent=2))
    else:
        for number in checked:
            typer.echo(f"step {number}: {f'damaged: {faults[number]}' if number in faults else 'whole'}")
    if faults:
        raise typer.Exit(1)


@checkpoint.command()
def export(
    run: Run,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", parser=path_of("DIR"), help="Where to write it; nothing may be there.")
    ],
    layout: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="hf: safetensors for transformers; torch: one pickled state dict; megatron: Megatron's torch_dist.",
        ),
    ] = ExportFormat.hf,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of the values; default that of the model's config.json, or float32.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Fold low-rank adapters into the weights.")] = False,
    adapter: Annotated[bool, typer.Option("--adapter", help="Write the adapters alone, as PEFT reads them.")] = False,
) -> None:
    """Write a checkpoint as a directory that transformers loads."""
    from hetero.checkpoint.errors import CheckpointError
    from hetero.checkpoint.export import export as write
    from hetero.checkpoint.export import export_adapter
    from hetero.job.run.model import kept_files, recorded_model
    from hetero.models.as_hf import as_hf

    point = _point(run)
    model = as_hf(recorded_model(point.run_dir))
    if adapter and (merge or dtype or layout is not ExportFormat.hf):
        rule = "adapters alone are written in one way, as they were trained"
        raise CheckpointError("--adapter", str(point), rule, "leave out --merge, --dtype and --format")
    lora, base = _adapters(point, "--merge" if merge else "--adapter") if merge or adapter else (None, None)
    if adapter and lora is not None:
        export_adapter(point, model, directory, lora, base)
    else:
        write(point, model, kept_files(point.run_dir), directory, layout.value, dtype and dtype.value, lora)
    typer.echo(f"wrote {directory}, as {model.model_type}")


@checkpoint.command("import")
def import_(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIR", parser=path_there("DIR"), help="A Hugging Face directory, or its name on the hub."
        ),
    ],
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", parser=path_of("RUN_DIR"), help="Where to; nothing may be there.")
    ],
    layout: Annotated[
        ImportFormat,
        typer.Option("--format", help="hf: a Hugging Face directory; megatron: torch_dist, config.json beside it."),
    ] = ImportFormat.hf,
) -> None:
    """Make a directory's weights a checkpoint of step 0, from which a job on that model goes on with --resume."""
    from hetero.checkpoint.errors import CheckpointError
    from hetero.checkpoint.imported import import_megatron, import_weights
    from hetero.checkpoint.resume import ResumePoint
    from hetero.huggingface.folder import HfFolder
    from hetero.huggingface.hub import place
    from hetero.job.job import model_facts
    from hetero.job.run.model import keep_folder
    from hetero.models.hf_model import HfModel
    from hetero.models.megatron_names import megatron_map
    from hetero.models.registry import architecture
    from hetero.models.stored_weights import StoredWeights

    folder = HfFolder(place(directory, "DIR"), directory, "DIR")
    model = HfModel.of(folder.config)
    if layout is ImportFormat.megatron:
        from hetero.checkpoint.megatron_folder import MegatronFolder

        theirs = MegatronFolder(folder.path)
        theirs.check(megatron_map(model).foreign)
        take = partial(import_megatron, theirs, model)
    else:
        stored = StoredWeights(model, folder)
        stored.check()
        take = partial(import_weights, stored, architecture(model))
    if run_dir.exists():
        raise CheckpointError("RUN_DIR", str(run_dir), "it is there, and nothing is overwritten", "name another one")
    run_dir.mkdir(parents=True)
    keep_folder(folder, run_dir)
    take(ResumePoint(run_dir, 0).store, {"model": model_facts(model)})
    typer.echo(f"wrote {run_dir}@0, of {model.model_type}")


def _adapters(point: ResumePoint, option: str) -> tuple[LoraOptions, str | None]:
    """How the run has trained adapters, and beside which model."""
    from hetero.checkpoint.errors import CheckpointError
    from hetero.job.run.model import recorded_adapters

    lora, base = recorded_adapters(point.run_dir)
    if lora is None:
        raise CheckpointError(option, str(point), "the run trains no adapters", f"export it without {option}")
    return lora, base


def _point(run: str) -> ResumePoint:
    from hetero.checkpoint.resume import ResumePoint

    return ResumePoint.parse(run, RUN)


def _print(point: ResumePoint, summary: Summary) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    kinds = ", ".join(f"{kind} ({count:,} elements)" for kind, count in summary.elements.items())
    rows = {
        "checkpoint": str(point),
        "step": f"{summary.step}, of which {summary.updates} were updates",
        "position": f"{summary.consumed_sequences:,} sequences, {summary.consumed_tokens:,} tokens",
        "tensors": f"{len(summary.tensors)}, each with {kinds}",
        "dtype": ", ".join(f"{dtype} ({count})" for dtype, count in summary.dtypes.items()),
        "bytes": f"{summary.bytes:,} in {summary.pieces} files",
        "directory": f"transformers loads it, {summary.directory_bytes:,} bytes" if summary.directory_bytes else "none",
        "plan": summary.plan or "none",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    Console().print(table)
