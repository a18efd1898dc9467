"""What a unit costs where backward makes some of its values again in place of keeping them. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from balancer.cost.workload import UnitWork
from hetero.models.parts.part import PartWork


def selective_work(
    plain: UnitWork, steps: Sequence[tuple[PartWork | None, PartWork]], alike: int, size: int
) -> UnitWork:
    """Of parts with those whose results they read; what branches have `alike` is kept once.

    Element-wise parts keep their input alone, and who reads their results nothing; others keep what their products
    gave. Each part makes its own again when backward comes to it; what of that every rank has whole is let go of before
    a part needs most."""
    works = [work for _, work in steps]
    read = sum(work.input_bytes for before, work in steps if before is None or not before.from_input_bytes)
    read_again = sum(work.input_bytes for work in works) - read
    remade_whole = sum(work.elementwise_whole_bytes for work in works)
    whole = read + sum(work.from_input_bytes or work.whole_bytes for work in works) - alike - remade_whole
    split = sum(work.kept_bytes - work.elementwise_bytes for work in works)
    remade, first = sum(work.elementwise_bytes for work in works), works[0]
    return replace(
        plain,
        activation_bytes=whole + split,
        whole_bytes=whole,
        gathered_bytes=0,
        apart_bytes=plain.gathered_bytes,
        last_bytes=plain.last_bytes + read_again + (_made_of_input(first, size) if first.from_input_bytes else 0),
        forward_bytes=plain.forward_bytes + remade,
        remade_bytes=plain.remade_bytes + remade,
    )


def full_work(plain: UnitWork, works: Sequence[PartWork], size: int, beside: int = 0) -> UnitWork:
    """Only what came in is kept, as large as what is given, and at most `beside` of adapters of the last product. The
    second run ends before that product, whose result nobody keeps."""
    split, whole = plain.activation_bytes - plain.whole_bytes, plain.whole_bytes
    remade_whole = whole - works[0].whole_bytes - works[0].input_bytes + _made_of_input(works[0], size)
    return replace(
        plain,
        activation_bytes=plain.boundary_bytes + beside,
        whole_bytes=plain.boundary_bytes + beside,
        gathered_bytes=0,
        last_bytes=plain.last_bytes + remade_whole,
        forward_bytes=plain.forward_bytes + split,
        remade_bytes=plain.remade_bytes + split,
        remade_whole_bytes=remade_whole,
        remade_flops=plain.remade_flops + plain.forward_flops - works[-1].last_flops,
    )


def _made_of_input(first: PartWork, size: int) -> int:
    """A float32 input is itself what an element-wise part would keep of it in float32."""
    return first.whole_bytes - (first.from_input_bytes if size == 4 else 0)
