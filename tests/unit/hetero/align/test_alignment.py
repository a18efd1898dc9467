"""What is judged alone, what behind others, and how it is shown."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from hetero.align.aligned import AlignOptions, aligned
from hetero.align.alignment import Alignment
from hetero.align.as_data import as_data
from hetero.align.as_page import page
from hetero.align.comparison import align
from hetero.align.errors import AlignError
from hetero.align.given_text import made_up
from hetero.align.misalignment import Misalignment
from hetero.align.model_trace import ModelTrace
from hetero.align.ours import OurModel
from hetero.align.source import source
from hetero.align.weights import difference
from hetero.checkpoint.errors import CheckpointError
from hetero.cli.app import run
from hetero.huggingface.errors import HfError
from hetero.job.file.load import KEPT_MODEL
from hetero.models.as_hf import as_hf
from hetero.models.distance import relative
from hetero.models.tolerance import TOLERANCES, Tolerance
from tests.unit.hetero.align.planted import LAYER, PLANTED, write
from tests.unit.hetero.checkpoint.test_export import DIMS, _logical, _saved, _with_adapters


def _against_itself(folder: Path, change=lambda trace: trace, limits: Tolerance = TOLERANCES["float32"]) -> Alignment:
    """Of a reference whose numbers were changed."""
    found = source(write(folder, "llama"), "--model")
    batch = made_up(found, 1, 12, 0, folder.parent).batch
    trace = change(OurModel(found, torch.float32).trace(batch))
    return align(found, found, trace, "changed", batch, "float32", limits)


def test_a_model_is_aligned_with_itself_bit_by_bit(tmp_path: Path) -> None:
    found = _against_itself(tmp_path / "model", limits=Tolerance(0.0, 0.0))
    assert not found.faults
    assert {unit.kind for unit in found.units} == {"embedding", "attention", "mlp", "head"}


def test_a_gradient_alone_names_the_operator_that_it_belongs_to(tmp_path: Path) -> None:
    def change(trace: ModelTrace) -> ModelTrace:
        wrong = {"units.4.down.weight": trace.tensors["units.4.down.weight"] * 1.01}
        return replace(trace, tensors={**trace.tensors, **wrong})

    (fault,) = _against_itself(tmp_path / "model", change).faults
    assert (fault.unit, fault.operator, fault.what) == (4, "down", "gradient")
    assert fault.error == pytest.approx(0.01, rel=0.02)


def test_a_gradient_of_the_stream_is_one_of_the_unit_that_gives_it(tmp_path: Path) -> None:
    """Which the unit before was given, too."""

    def change(trace: ModelTrace) -> ModelTrace:
        gradients = [*trace.gradients]
        gradients[2] = gradients[2] * 1.01
        return replace(trace, gradients=gradients)

    faults = _against_itself(tmp_path / "model", change).faults
    assert (3, "input") in [(fault.unit, fault.operator) for fault in faults]


def test_roundings_that_add_up_are_told_as_such(tmp_path: Path) -> None:
    folder, options = write(tmp_path / "model", "qwen2"), AlignOptions("bfloat16", "float32", samples=1, length=12)
    found = aligned(folder, folder, options)
    assert not found.faults
    least = max(unit.alone.worst for unit in found.units)
    (fault,) = replace(found, tolerance=Tolerance(least, 0.5 * least)).faults
    assert "sum of their roundings" in fault.cause
    assert fault.operator == ""


def test_a_model_of_another_size_is_no_reference(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", "qwen2"), write(tmp_path / "other", "qwen3")
    with pytest.raises(AlignError, match=r"--against.*not there.*one architecture and size"):
        aligned(one, other)


def test_a_model_of_fewer_tokens_is_no_reference(tmp_path: Path) -> None:
    one, fewer = write(tmp_path / "one", "qwen2"), write(tmp_path / "fewer", "qwen2", vocab_size=37)
    with pytest.raises(AlignError, match=r"units\.0\.embedding\.weight is \(37, 32\), and the model's \(61, 32\)"):
        aligned(one, fewer)


def test_a_tensor_that_is_nobodys_is_refused(tmp_path: Path) -> None:
    def plant(config: dict, tensors: dict) -> None:
        tensors["model.extra.weight"] = torch.zeros(2)

    one = write(tmp_path / "one", "llama", plant)
    with pytest.raises(HfError, match=r"of no use: model\.extra\.weight"):
        aligned(one, one)


def test_a_reference_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    right = write(tmp_path / "right", "llama")
    wrong = write(tmp_path / "wrong", "llama", PLANTED["missing tensor"].plant)
    with pytest.raises(AlignError, match=r"--against.*k_proj"):
        aligned(right, wrong)


def test_a_checkpoint_is_compared_like_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dims = DIMS.model_copy(update={"vocab": 300})
    point = _saved(tmp_path / "run", _logical(dims))
    job = {
        "model": {"dimensions": dims.model_dump()},
        "data": {"seq_len": 4},
        "train": {"steps": 4, "global_batch": 2},
        "pools": {"here": {"family": "cpu", "count": 1}},
    }
    (tmp_path / "run" / "job.yaml").write_text(yaml.safe_dump(job))
    out = str(tmp_path / "out")
    assert run(["checkpoint", "export", str(point.run_dir), out]) == 0
    assert run(["align", "--model", f"{point.run_dir}@3", "--against", out, "--seq-len", "8", "--tolerance", "0"]) == 0
    assert "aligned: " in capsys.readouterr().out


def test_adapters_of_which_no_job_tells_are_refused(tmp_path: Path) -> None:
    model = as_hf(DIMS)
    point = _saved(tmp_path / "run", _with_adapters(model))
    (tmp_path / "run" / KEPT_MODEL).mkdir()
    (tmp_path / "run" / KEPT_MODEL / "config.json").write_text(model.config)
    with pytest.raises(CheckpointError, match="adapters"):
        source(str(point.run_dir), "--model")


def test_the_command_names_the_first_operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = PLANTED["transposed weight"]
    wrong, right = write(tmp_path / "wrong", planted.kind, planted.plant), write(tmp_path / "right", planted.kind)
    html = tmp_path / "page.html"
    command = ["align", "--model", wrong, "--against", right, "--samples", "1", "--seq-len", "12"]
    assert run([*command, "--html", str(html)]) == 1
    screen = " ".join(capsys.readouterr().out.split())
    place = f"unit 3 (attention, {LAYER.format(1)[:-1]}), operator q: the value differs by"
    assert f"differs first in {place}" in screen
    assert "q.weight differs: it is transposed" in screen
    assert place in html.read_text()
    assert run([*command, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["aligned"], told["faults"][0]["operator"]) == (False, "q")
    assert told["units"][3]["operators"]["q"] > told["tolerance"]["alone"] > told["units"][3]["operators"]["k"]


def test_a_page_needs_nothing_else_and_shows_names_as_they_are(tmp_path: Path) -> None:
    found = replace(_against_itself(tmp_path / "model"), model="<b>&model")
    shown = page(found)
    assert "&lt;b&gt;&amp;model" in shown
    assert "<b>&model" not in shown
    assert "http" not in shown.replace("http-equiv", "")


def test_what_is_not_finite_is_beyond_any_tolerance_and_null_as_data() -> None:
    x = torch.tensor([1.0, math.nan])
    assert relative(x, torch.ones(2)) == math.inf
    assert relative(torch.ones(2), x) == math.inf
    assert relative(torch.ones(2), torch.ones(3)) == math.inf
    assert relative(torch.zeros(2), torch.zeros(2)) == 0.0
    fault = Misalignment(0, "mlp", "", "down", "value", math.inf, 1e-5)
    found = Alignment("a", "b", "float32", TOLERANCES["float32"], [], [fault])
    assert as_data(found)["faults"][0]["error"] is None


def test_how_weights_differ() -> None:
    stack = torch.randn(3, 4, 4)
    other = stack.clone()
    other[2] = stack[2].t()
    assert difference(stack, stack) is None
    assert str(difference(other, stack)) == "differs in 2: other values"
    assert str(difference(stack[0].t(), stack[0])) == "differs: it is transposed"
    assert str(difference(stack.half().float(), stack)) == "differs: it is rounded to float16"
