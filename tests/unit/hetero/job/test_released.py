"""A run directory with a checkpoint that release 0.1.0 wrote: it opens, is the same job on the same text, and goes on.

Two pools (tp 2 and 1) trained a tied model of one layer; `released/run` has the checkpoint of step 3 of 6.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from backends.operators import Operators
from hetero.checkpoint.pieces import CheckpointReader
from hetero.checkpoint.resume import ResumePoint
from hetero.data.batches import micro_batch
from hetero.data.source import prepare
from hetero.data.split import Training
from hetero.data.stream import TokenStream
from hetero.job.file.load import load_job
from hetero.job.job import Job
from hetero.job.run.resuming import check_resume, check_text
from hetero.layers.builder import Builder
from hetero.layers.group import TensorGroup
from hetero.models.registry import architecture
from hetero.models.unit_module import build_unit
from hetero.monitoring.follow import follow

RUN = Path(__file__).with_name("released") / "run"
POINT = ResumePoint(RUN, 3)


def _job() -> Job:
    return load_job(RUN / "job.yaml", [f"data.source={RUN.parent / 'text.txt'}"])


def test_it_is_the_same_job_on_the_same_text(tmp_path: Path) -> None:
    job = _job()
    assert ResumePoint.parse(str(RUN)) == POINT
    check_resume(job, POINT)
    assert check_text(job, POINT, prepare(job.data, tmp_path)) == ""


def test_every_line_of_it_can_be_read() -> None:
    follower = follow(RUN)
    assert follower.unreadable == 0
    assert set(follower.hosts) == {pool + "@0" for pool in _job().pools}


def test_it_has_the_tensors_of_the_model() -> None:
    model = architecture(_job().model.resolve())
    specs = {spec.name: spec for unit in range(len(model.units)) for spec in model.tensors(unit, 1).values()}
    with CheckpointReader(POINT.store, POINT.step) as reader:
        assert {name: reader.shape(name) for name in reader.names()} == {
            name: spec.layout.shape for name, spec in specs.items()
        }


@pytest.mark.slow
def test_it_goes_on_as_it_did(tmp_path: Path) -> None:
    """Losses of the next steps, and with them parameters, moments, text and order, in a plain loop."""
    job = _job()
    dims, text, options = job.model.resolve(), prepare(job.data, tmp_path), job.train.optimizer
    builder = Builder(TensorGroup(), Operators(), seed=1)
    units = [build_unit(dims, index, builder) for index in range(len(architecture(dims).units))]
    parameters = {tensor.name: tensor.parameter for unit in units for tensor in unit.tensors()}
    optimizer = torch.optim.AdamW(parameters.values(), options.lr, options.betas, options.eps, weight_decay=0.0)
    _load(parameters, optimizer)
    stream = TokenStream(text.path, job.data.seq_len, text.vocab)
    order, batch, losses = Training(job.train.seed, len(stream), 0), job.train.global_batch, []
    for step in range(POINT.step, job.train.steps):
        boundary: dict[str, torch.Tensor] = {}
        samples = micro_batch(stream, order, step * batch, batch)
        for unit in units:
            boundary = unit(boundary, samples)
        loss = boundary["loss"] / samples.tokens_BT.numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), options.clip or torch.inf)
        optimizer.step()
        losses.append(loss.item())
    recorded = [json.loads(line)["loss"] for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    assert losses == pytest.approx(recorded[POINT.step :], rel=1e-5)


def _load(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    with CheckpointReader(POINT.store, POINT.step) as reader:
        for name, parameter in parameters.items():
            whole = tuple((0, extent) for extent in parameter.shape)
            state = {kind: reader.read(name, kind, whole) for kind in reader.kinds(name)}
            parameter.data.copy_(state.pop("parameter"))
            optimizer.state[parameter] = {"step": torch.tensor(float(POINT.step)), **state}


def test_its_journals_are_followed() -> None:
    follower = follow(RUN)
    assert follower.recent[-1]["step"] == 5
    assert {"started", "saved", "finished"} <= follower.last_of_kind.keys()
