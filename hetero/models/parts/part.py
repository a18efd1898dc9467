"""What every part of a model tells of itself. Torch-free, as all parts are; a part's module lies beside it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from balancer.cost.workload import NO_BYTES, TpBytes
from hetero.layers.spec import TensorSpec


@dataclass(frozen=True)
class PartWork:
    """What a part costs per sequence, with the plain operators of `backends/operators.py`.

    `forward_flops` are those of matrix products, 2 per multiply-add; `collectives` are forward all-reduces of a
    boundary tensor. What is `kept` lies there until backward, and so do `input_bytes`, its input if backward reads
    that, on every rank. At tp 1, forward needs `forward_bytes` meanwhile; backward needs what `backward` says, and
    makes `remade_bytes` again, which tp divides and which lie beside all else, by products of `remade_flops`.

    What `ELEMENTWISE` operators (`backends/operators.py`) give and keep can be made again: all of a part that is one of
    them, from its input of `from_input_bytes`; of what another has `kept`, what is `elementwise`, from the rest, which
    makes `made_again` if that is more than what tp divides of it.
    `last_flops` are of a last product whose result nobody keeps.

    Where a backward is two actions, the gradients of its products' weights come with the second, and take
    `weight_flops`. Until then their `pairs` of input and output's gradient are kept. Of products with frozen weights
    nobody makes the gradients, which is `frozen_flops` less in a backward. What parts share of a sample has a name for
    all that read it: `masks` where samples are of several documents, of each in flight, and `plain_masks` where they
    are not, of all samples alike; what a part then keeps for itself beside `kept` is `packed`.
    """

    forward_flops: float = 0.0
    collectives: int = 0
    kept: TpBytes = NO_BYTES
    packed: TpBytes = NO_BYTES
    input_bytes: int = 0
    forward_bytes: int = 0
    backward: TpBytes = NO_BYTES
    remade_bytes: int = 0
    remade_flops: float = 0.0
    from_input_bytes: int = 0
    elementwise: TpBytes = NO_BYTES
    made_again: TpBytes | None = None
    last_flops: float = 0.0
    weight_flops: float = 0.0
    pairs: TpBytes = NO_BYTES
    frozen_flops: float = 0.0
    masks: Mapping[str, int] = field(default_factory=dict)
    plain_masks: Mapping[str, int] = field(default_factory=dict)

    @property
    def backward_reads_bytes(self) -> int:
        return self.kept.split + self.kept.whole + self.input_bytes


class Part(ABC):
    """One step of a unit's computation. Equal parts are alike in everything."""

    module: ClassVar[str]
    """"module:Class", which may import torch: made with (builder, part, specs), called with (x_BTD, batch)."""

    @abstractmethod
    def tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        """Its tensors, named within the unit and laid out over a legal number of ranks, as the module makes them."""

    def spread_tensors(self, tp: int) -> tuple[TensorSpec, ...]:
        """The same where each rank of a stage has some experts whole, in place of a slice of each."""
        return self.tensors(tp)

    @property
    def expert_count(self) -> int:
        """Experts that a token may go to, 0 where it has none."""
        return 0

    @property
    def largest_weight(self) -> int:
        """Elements of the largest gradient that is made at once."""
        return max((math.prod(spec.layout.shape) for spec in self.tensors(1)), default=0)

    @abstractmethod
    def work(self, seq_len: int, size: int) -> PartWork:
        """What it costs where an element of an activation has `size` bytes."""

    def multiplied(self) -> tuple[str, ...]:
        """Of its tensors, the weights that its module multiplies by with `hetero/layers/linear.py`: these may have
        adapters."""
        return tuple(spec.name for spec in self.tensors(1) if len(spec.layout.shape) == 2)

    def legal_tp(self, tp: int) -> str | None:
        """Why it cannot be split over tp ranks, or None if it can."""
        return None

    @property
    def longest(self) -> int | None:
        """The longest sample that it is made for, None where it is for any."""
        return None

    @property
    def refused(self) -> dict[str, str]:
        """Strategies of a plan that it does not know, with the reason."""
        return {}

    @property
    def is_layer(self) -> bool:
        """Whether it is all of a layer, of which backward can make everything again."""
        return False

    @property
    def alone(self) -> str | None:
        """Why a sample must be one document, None where it need not."""
        return None

    @property
    def unlike(self) -> str | None:
        """The first of its tensors whose own first values are not known here."""
        return None

    def product_flops(self, seq_len: int) -> float:
        """Of one product with each of its matrices."""
        shapes = (spec.layout.shape for spec in self.tensors(1))
        return 2.0 * seq_len * sum(math.prod(shape) for shape in shapes if len(shape) > 1)
