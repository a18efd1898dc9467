"""The units of a Llama-style decoder as torch modules. Shapes: B sequences, T positions, D hidden, V vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from backends.operators import Operators
from hetero.layers.attention import Attention
from hetero.layers.builder import Builder, LogicalTensor, tensors
from hetero.layers.embedding import VocabEmbedding
from hetero.layers.group import TensorGroup
from hetero.layers.head import VocabHead
from hetero.layers.mlp import SwiGLU
from hetero.layers.norm import RMSNorm
from hetero.layers.spec import TensorSpec
from hetero.models.batch import Batch
from hetero.models.dimensions import Dimensions
from hetero.models.llama import Llama

Boundary = dict[str, torch.Tensor]
Specs = Mapping[str, TensorSpec]


class Unit(nn.Module):
    """One unit: boundary tensors in, boundary tensors out; the head gives {"loss": the sum of token losses}."""

    def tensors(self) -> Iterator[LogicalTensor]:
        """This rank's part of the logical tensors that the unit uses."""
        return tensors(self)


class EmbeddingUnit(Unit):
    """tokens_BT -> x_BTD; takes no boundary tensor."""

    def __init__(self, builder: Builder, specs: Specs, dims: Dimensions) -> None:
        super().__init__()
        self.embedding = VocabEmbedding(builder, specs["embedding.weight"])

    def forward(self, boundary: Boundary, batch: Batch) -> Boundary:
        return {"x_BTD": self.embedding(batch.tokens_BT)}


class AttentionUnit(Unit):
    """x + attention(norm(x))"""

    def __init__(self, builder: Builder, specs: Specs, dims: Dimensions) -> None:
        super().__init__()
        self.norm = RMSNorm(builder, specs["norm.weight"], dims.norm_eps)
        self.attention = Attention(builder, specs, dims.head_dim, dims.rope_theta)

    def forward(self, boundary: Boundary, batch: Batch) -> Boundary:
        x_BTD = boundary["x_BTD"]
        return {"x_BTD": x_BTD + self.attention(self.norm(x_BTD), batch.positions_T)}


class MlpUnit(Unit):
    """x + mlp(norm(x))"""

    def __init__(self, builder: Builder, specs: Specs, dims: Dimensions) -> None:
        super().__init__()
        self.norm = RMSNorm(builder, specs["norm.weight"], dims.norm_eps)
        self.mlp = SwiGLU(builder, specs)

    def forward(self, boundary: Boundary, batch: Batch) -> Boundary:
        x_BTD = boundary["x_BTD"]
        return {"x_BTD": x_BTD + self.mlp(self.norm(x_BTD))}


class HeadUnit(Unit):
    """Final norm, logits, and the sum of the token losses as a float32 scalar."""

    def __init__(self, builder: Builder, specs: Specs, dims: Dimensions) -> None:
        super().__init__()
        self.norm = RMSNorm(builder, specs["norm.weight"], dims.norm_eps)
        self.head = VocabHead(builder, specs["head.weight"])

    def forward(self, boundary: Boundary, batch: Batch) -> Boundary:
        return {"loss": self.head(self.norm(boundary["x_BTD"]), batch.labels_BT)}


_UNITS = {"embedding": EmbeddingUnit, "attention": AttentionUnit, "mlp": MlpUnit, "head": HeadUnit}


def build_unit(
    dims: Dimensions,
    index: int,
    group: TensorGroup,
    operators: Operators,
    dtype: torch.dtype,
    device: torch.device,
    seed: int,
    fill: bool = True,
    shared: dict[str, nn.Parameter] | None = None,
) -> Unit:
    """Unit `index` of the model, as rank `group.rank` of its group holds it.

    `fill` False leaves the parameters' memory as it comes. Units of one rank that are built with the same `shared`
    use one Parameter for a tied tensor. Raises LayoutError where the group's size is illegal for the model.
    """
    builder = Builder(group, operators, dtype, device, seed if fill else None, {} if shared is None else shared)
    specs = Llama.tensors(dims, index, group.size)
    return _UNITS[Llama.units(dims)[index].kind](builder, specs, dims)
