"""What is known of a model that runs on transformers' own modules. Plain data, which takes no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict

from bridge.layout.layout import TensorLayout
from hetero.layers.spec import Constant, Normal, TensorSpec
from hetero.models.weight_map import Block

Role = Literal["embedding", "layer", "head"]
Style = Literal["inward", "outward", "packed", "experts", "latent"]
"""Of a module on several ranks: each makes some of its outputs, of two halves each some, or has some of its inputs and
all sum; the experts sum what they made of a slice of each; of what a latent product makes, the last outputs go to all
heads."""


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToldTensor(_Told):
    """A logical tensor by its name within the unit: the parameter or buffer `parameter` of the module or, where that
    is packed, number `part` of what lies there end to end along `axis`.

    It is `shared` with another unit. Ranks cut it along `cut`, or all have it whole and each makes a `share` of its
    gradient, or all of it. It begins with a normal deviation `std`, or at `value`."""

    name: str
    parameter: str
    shape: tuple[int, ...]
    part: int | None = None
    axis: int = 0
    cut: int | None = None
    share: bool = False
    shared: bool = False
    trains: bool = True
    std: float | None = None
    value: float | None = None

    def spec(self, tp: int) -> TensorSpec:
        if self.cut is None or tp == 1:
            layout = TensorLayout.replicated(self.shape, tp, "summed" if self.share and tp > 1 else "equal")
        else:
            layout = TensorLayout.split(self.shape, self.cut, tp)
        initial = Constant(self.value or 0.0) if self.std is None else Normal(self.std)
        return TensorSpec(self.name, layout, initial, self.trains)


class ToldBlock(_Told):
    """The box `here` of a logical tensor is the box `there` of a directory's, whose dimensions are the logical `dims`.
    A name with `{item}` is of one index of the first dimension, and there are as many."""

    tensor: str
    foreign: str
    here: tuple[tuple[int, int], ...]
    there: tuple[tuple[int, int], ...]
    dims: tuple[int, ...]

    def blocks(self, logical: str) -> Iterator[Block]:
        slices = tuple(slice(start, stop, 1) for start, stop in self.there)
        if "{item}" not in self.foreign:
            yield Block(logical, self.here, self.foreign, slices, self.dims)
            return
        for item in range(*self.here[0]):
            here = ((item, item + 1), *self.here[1:])
            yield Block(logical, here, self.foreign.format(item=item), slices, self.dims)


class ToldBytes(_Told):
    """What lies there until backward, per position, and per square of positions: what tp divides, and what not."""

    split: tuple[float, float] = (0.0, 0.0)
    whole: tuple[float, float] = (0.0, 0.0)

    def at(self, seq_len: int) -> tuple[int, int]:
        """Split and whole, of a sequence."""
        return tuple(int(a * seq_len + b * seq_len**2) for a, b in (self.split, self.whole))  # type: ignore[return-value]


class ToldWork(_Told):
    """`flops` of a forward per position, and per square of positions without a mask. `products` are those of weights
    whose gradients can be put off, and `pair` has the inputs and outputs of these, in elements.

    By the size of an element there are bytes: what is `kept`, what a `backward` needs beside, and what is kept more
    where samples are `packed`; what of all that can be `remade` without products, for which so much is `made_again`;
    and what is `shared` with other layers, by name: what they are given beside the stream, where samples are of several
    documents, and where they are not."""

    flops: tuple[float, float] = (0.0, 0.0)
    products: float = 0.0
    pair: int = 0
    collectives: int = 0
    kept: dict[int, ToldBytes] = {}
    backward: dict[int, tuple[float, float]] = {}
    packed: dict[int, ToldBytes] = {}
    remade: dict[int, ToldBytes] = {}
    made_again: dict[int, ToldBytes] = {}
    shared: dict[int, dict[str, ToldBytes]] = {}
    plain_shared: dict[int, dict[str, ToldBytes]] = {}


class ToldLogits(_Told):
    """Those of a head that multiplies by its weight, and adds its bias if `tensors` has one: `scale` times that, at
    most a `cap`."""

    tensors: tuple[ToldTensor, ...]
    scale: float = 1.0
    cap: float | None = None


class ToldUnit(_Told):
    """Units of one kind. `styles` are of modules within it, by their names; `linear` are those whose products are ours
    to make. The last `rope` outputs of a latent product go to all heads; a layer `gives` so many things, none where it
    is the stream alone. Of a head whose `logits` are ours to make, `tensors` are those of the norm."""

    kind: str
    role: Role
    tensors: tuple[ToldTensor, ...]
    logits: ToldLogits | None = None
    styles: dict[str, Style] = {}
    linear: tuple[str, ...] = ()
    rope: int = 0
    gives: int = 0
    work: ToldWork = ToldWork()

    @property
    def every_tensor(self) -> tuple[ToldTensor, ...]:
        return self.tensors if self.logits is None else (*self.tensors, *self.logits.tensors)


class ToldModel(_Told):
    """`units` number `kinds`. Where `tied`, the head uses that tensor of the embedding.

    blocks  of each unit, where directories have its tensors; `ties` are names there that stand for others, and `prefix`
            begins names
    tps     over how many ranks it can be split; `whole` says why it cannot be at all
    alone   why a sample must be one document; nothing where it may be several
    """

    hidden: int
    longest: int | None = None
    kinds: tuple[ToldUnit, ...]
    units: tuple[int, ...]
    tied: str | None
    blocks: tuple[tuple[ToldBlock, ...], ...] = ()
    ties: dict[str, str] = {}
    prefix: str = "model."
    whole: str = ""
    tps: tuple[int, ...] = (1,)
    alone: str = ""
