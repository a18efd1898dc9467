"""What a unit costs where backward makes some of its values again in place of keeping them. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from balancer.cost.workload import NO_BYTES, TpBytes, UnitWork
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
    first, again = works[0], sum((work.elementwise for work in works), NO_BYTES)
    whole = read + sum(work.from_input_bytes or work.kept.whole for work in works) - alike - again.whole
    split = sum(work.kept.split for work in works) - again.split
    return replace(
        plain,
        activation_bytes=whole + split,
        whole_bytes=whole,
        gathered_bytes=0,
        apart_bytes=plain.gathered_bytes,
        last_bytes=plain.last_bytes + read_again + (_made_of_input(first, size) if first.from_input_bytes else 0),
        forward_bytes=plain.forward_bytes + again.split,
        remade=sum((work.made_again or TpBytes(work.elementwise.split) for work in works), plain.remade),
    )


def full_work(plain: UnitWork, works: Sequence[PartWork], size: int, beside: int = 0) -> UnitWork:
    """Only what came in is kept, as large as what is given, and at most `beside` of adapters of the last product. The
    second run ends before that product, whose result nobody keeps."""
    split, whole = plain.activation_bytes - plain.whole_bytes, plain.whole_bytes
    remade_whole = whole - works[0].kept.whole - works[0].input_bytes + _made_of_input(works[0], size)
    return replace(
        plain,
        activation_bytes=plain.boundary_bytes + beside,
        whole_bytes=plain.boundary_bytes + beside,
        gathered_bytes=0,
        last_bytes=plain.last_bytes + remade_whole,
        forward_bytes=plain.forward_bytes + split,
        remade=TpBytes(plain.remade.split + split, remade_whole),
        remade_flops=plain.remade_flops + plain.forward_flops - works[-1].last_flops,
    )


def _made_of_input(first: PartWork, size: int) -> int:
    """A float32 input is itself what an element-wise part would keep of it in float32."""
    return first.kept.whole - (first.from_input_bytes if size == 4 else 0)
