"""What CUDA's stack is asked for where it has it, on a host that has none of it; and why not, where it has not."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends import compiled as compiling
from backends.compiled import compiled
from backends.cuda import CudaBackend
from backends.kunlun import KunlunBackend
from backends.offers import choose, fault_of
from backends.operators import swiglu

CPU = torch.device("cpu")
OFFERS = {offer.operator: offer for offer in CudaBackend.offers}


def test_without_its_kernels_all_is_plain_and_told() -> None:
    table = choose(CudaBackend.offers, CPU)
    assert not table.own
    assert table.refused == {
        "rms_norm": f"torch's fused kernel: torch {torch.__version__} has none",
        "rotary": "torch.compile: triton is not installed",
        "swiglu": "torch.compile: triton is not installed",
        "add_product": f"a product into float32: torch {torch.__version__} has none",
    }


def test_its_norm_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own definition on this host, which its kernel computes in one."""
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda name, key: key == "CUDA")
    assert not fault_of("rms_norm", OFFERS["rms_norm"].load(), CPU)


def test_what_is_compiled_is_for_any_shape_and_starts_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    settings = SimpleNamespace(compile_threads=8)
    monkeypatch.setattr(compiling, "find_spec", lambda name: name)
    monkeypatch.setattr(compiling, "import_module", lambda name: settings)
    monkeypatch.setattr(torch, "compile", lambda plain, **options: asked.update(options) or plain)
    assert compiled(swiglu)() is swiglu
    assert asked == {"dynamic": True}
    assert vars(settings) == {"compile_threads": 1}, "and no setting that this torch does not have"


def test_torch_has_the_settings_by_these_names() -> None:
    """Without loading its compiler: the files of settings are read."""
    for module, name in (("_inductor", "compile_threads"), ("_dynamo", "recompile_limit")):
        text = (Path(torch.__file__).parent / module / "config.py").read_text()
        assert re.search(rf"^(def )?{name}\b|^    {name}\b", text, re.MULTILINE), name


def test_nothing_of_it_is_thought_to_work_behind_a_plug_in() -> None:
    assert KunlunBackend.offers == ()
