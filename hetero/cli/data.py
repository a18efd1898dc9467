"""`hetero data`: makes a job's data ready, and shows what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from hetero.cli.arguments import JobFile, Settings
from hetero.terminal import plain

if TYPE_CHECKING:
    from hetero.data.documents.making import MakingProgress, Tell
    from hetero.data.look import LookedSample
    from hetero.data.prepared import Prepared
    from hetero.job.job import Job

data = typer.Typer(name="data", help="Make a job's data ready, and look at it.", no_args_is_help=True)


@data.command()
def prepare(job_file: JobFile, settings: Settings = None) -> None:
    """Make a job's tokens, once and on all cores; what was broken off goes on. hetero train does the same."""
    with _prepared(job_file, settings or ()) as (job, text):
        samples = ", ".join(f"{count:,}" for count in text.samples)
        typer.echo(f"{text.n_tokens:,} tokens, {samples} samples of {job.data.seq_len}, fingerprint {text.fingerprint}")
        if text.note:
            typer.echo(f"note: {plain(text.note)}")
        typer.echo(f"kept in {text.path.parent}" if text.parts else "a text of bytes is made anew by each run")


@data.command()
def look(
    job_file: JobFile,
    settings: Settings = None,
    samples: Annotated[int, typer.Option(min=1, help="How many of the first samples of the run.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show the first samples that a job trains on: what is learnt in green, or in ⟦ ⟧; documents, padding."""
    from hetero.data.look import looked
    from hetero.data.text import orders, text_stream
    from hetero.data.tokenizing.loading import load_tokenizer

    with _prepared(job_file, settings or ()) as (job, text):
        run = text.told(job.data.seq_len)
        stream = text_stream(run)
        held_out = job.eval.held_out_batches * job.train.global_batch
        training, _ = orders(run, stream, job.train.seed, held_out)
        found = looked(stream, training, load_tokenizer(job.text().tokenizer), samples)
        if as_json:
            typer.echo(json.dumps({"samples": [asdict(sample) for sample in found]}, ensure_ascii=False))
        else:
            _print(found)


@contextmanager
def _prepared(job_file: Path, settings: Sequence[str]) -> Iterator[tuple[Job, Prepared]]:
    """The job and its data, whose mistakes are shown with their place."""
    from hetero.data.mixture import check_splits
    from hetero.data.source import prepare as made
    from hetero.job.file.load import load_job, mistakes_located

    job = load_job(job_file, settings)
    with mistakes_located(job_file, settings), TemporaryDirectory() as folder, _shown() as tell:
        text = made(job.text(), Path(folder), room=job.model.resolve().vocab, tell=tell)
        check_splits(text.samples, text.weights, job.train.global_batch, job.eval.held_out_batches)
        yield job, text


@contextmanager
def _shown() -> Iterator[Tell]:
    """A bar of the bytes that have been read, while there are any to read."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    percent = TextColumn("{task.percentage:>3.0f}%")
    columns = TextColumn("{task.description}"), BarColumn(), percent, TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: list[TaskID] = []

        def tell(made: MakingProgress) -> None:
            tasks[:] = tasks or [progress.add_task("")]
            what = f"{made.n_documents:,} documents, {made.n_tokens:,} tokens"
            progress.update(tasks[0], description=what, completed=made.read_bytes, total=made.total_bytes)

        yield tell


def _print(samples: Iterator[LookedSample]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    begin, end = ("", "") if console.color_system else "⟦⟧"
    for sample in samples:
        console.rule(f"sample {sample.position} of the run, {sample.index} of the text", style="bold")
        for number, document in enumerate(sample.documents, 1):
            console.print(f"document {number}: {document.learnt} of {document.tokens} tokens are learnt", style="cyan")
            text = Text()
            for stretch in document.stretches:
                shown = plain(stretch.text)
                text.append(f"{begin}{shown}{end}" if stretch.learnt else shown, "green" if stretch.learnt else "dim")
            console.print(text, soft_wrap=True)
        if sample.padding:
            console.print(f"padding: {sample.padding} tokens", style="cyan")
