"""Vendor names live in `backends/` alone, those of operators and compilers too: whoever adds a chip edits one file
there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import name_of, nodes, python_files

VENDOR_WORDS = {
    *("cuda", "nccl", "rocm", "cudnn", "cublas", "cutlass", "cudart"),
    *("ascend", "npu", "torch_npu", "hccl", "cann", "acl", "aclnn"),
    *("kunlun", "kunlunxin", "xpu", "torch_xmlir", "xmlir", "xpytorch", "bkcl", "xccl"),
    *("triton", "inductor", "dynamo", "flash", "xformers", "apex"),
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def _words(text: str) -> set[str]:
    """Also those that a name is put together from: `CudaBackend`, `npu_rms_norm`, `isCUDA`."""
    pieces = re.findall(r"[A-Za-z_]+", text)
    return {word.lower() for piece in pieces for word in (piece, *piece.split("_"), *_WORD.findall(piece))}


def _vendor_uses(path: Path) -> Iterator[tuple[int, str]]:
    """Identifiers and string literals that name a vendor; docstrings may, since they are for people."""
    spoken = {id(doc) for node in nodes(path) if (doc := _docstring(node)) is not None}
    for node in nodes(path):
        for text in _texts(node):
            for word in _words(text) & VENDOR_WORDS:
                if id(node) not in spoken:
                    yield getattr(node, "lineno", 0), word


def _docstring(node: ast.AST) -> ast.Constant | None:
    """Any string that stands alone: docstrings of modules, classes, functions and attributes."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value
    return None


def _texts(node: ast.AST) -> Iterator[str]:
    for field in ("id", "attr", "name", "arg", "module"):
        value = getattr(node, field, None)
        if isinstance(value, str):
            yield value
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def test_a_family_is_asked_by_the_table_alone() -> None:
    """What computes an operator is its family's own business: nobody else compiles, or picks a kernel."""
    found = [
        f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}"
        for path in python_files("balancer", "bridge", "hetero")
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.compile", "torch.ops", "torch.jit")
    ]
    assert not found, "\n".join(found)


def test_vendor_names_are_in_backends_alone() -> None:
    found = [
        f"{name_of(path)}:{line}: {word}"
        for path in python_files("balancer", "bridge", "hetero")
        for line, word in _vendor_uses(path)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ('device = "cuda:0"', {"cuda"}),
        ("torch.npu.synchronize()", {"npu"}),
        ("import torch_npu", {"torch_npu", "npu"}),
        ("from backends.cuda import CudaBackend", {"cuda"}),
        ("options = HCCLOptions()", {"hccl"}),
        ("y = torch.ops.npu_rms_norm(x)", {"npu"}),
        ('operator = f"aclnn{name}"', {"aclnn"}),
        ("torch.backends.cuda.sdp_kernel(enable_flash=True)", {"cuda", "flash"}),
        ("import triton.language as tl", {"triton"}),
        ("from torch._inductor import config", {"inductor"}),
        ('"""Speaks of Kunlun."""', set()),
        ("inputs = ascending(x)", set()),
        ("def f(accumulate): return accumulate", set()),
    ],
)
def test_the_search_sees_what_it_must(tmp_path: Path, source: str, named: set[str]) -> None:
    path = tmp_path / "sample.py"
    path.write_text(source)
    assert {word for _, word in _vendor_uses(path)} == named
