"""A model on transformers' own modules as units, and where a directory has its tensors. Torch-free."""

from __future__ import annotations

from functools import cache

from bridge.layout.layout import Shape
from hetero.models.architecture import Architecture
from hetero.models.hf_model import HfModel
from hetero.models.provided.asking import told_of
from hetero.models.provided.part import ProvidedPart, head_of
from hetero.models.unit import LOSS, STREAM, Unit
from hetero.models.weight_map import Block, WeightMap


@cache
def describe(model: HfModel) -> Architecture:
    told = told_of(model)
    units = []
    for number in told.units:
        kind = told.kinds[number]
        last, part = kind.role == "head", ProvidedPart(model, told, kind.kind)
        parts = (part,) if kind.logits is None else (part, head_of(kind.logits))
        ties = {"head.weight": (0, str(told.tied))} if last and told.tied is not None else {}
        units.append(Unit(kind.kind, parts, gives=LOSS if last else STREAM, ties=ties))
    return Architecture(tuple(units), {STREAM: told.hidden})


def weights(model: HfModel) -> WeightMap:
    told, found = told_of(model), describe(model)
    logical: dict[str, Shape] = {}
    blocks: list[Block] = []
    for number, own in enumerate(told.blocks):
        named = found.tensors(number, 1)
        logical |= {
            spec.name: spec.layout.shape for name, spec in named.items() if name not in found.units[number].ties
        }
        blocks += [block for one in own for block in one.blocks(named[one.tensor].name)]
    return WeightMap(logical, blocks, told.ties, told.prefix)
