"""What is timed in place of a micro-batch, where that would take too long or too much memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from balancer.cost.workload import UnitWork
from bridge.precision import ITEM_BYTES
from hetero.models.description import ModelDescription
from hetero.models.registry import architecture
from hetero.models.tuning import EVERYTHING, Tuning

_FEWEST_TOKENS, _SMALLEST_VOCABULARY = 64, 1024
"""With fewer, products would run at another speed than whole ones."""
_FEW, _SOON_S = 5, 1.0
_PACED_S = 4.0
"""Of an emulated chip's passes: enough for all that a profile wants, unless it is slowed more than it need be."""


@dataclass(frozen=True)
class Limits:
    """Of one rank: for a forward with its backward, and for weights with their gradients, and as much again for
    everything else."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Trial:
    """`sequences` of `seq_len` tokens through a unit of this kind, of which this rank has one part of `tp`. Where they
    are `packed`, attention is that of documents, of which each has one: the longest that may come."""

    model: ModelDescription
    kind: str
    tp: int
    precision: str
    sequences: int
    seq_len: int
    tuning: Tuning = EVERYTHING
    packed: bool = False

    @property
    def work(self) -> UnitWork:
        """Of one sequence."""
        units = architecture(self.model, self.tuning).workload(self.seq_len, 1, self.precision).units
        return next(unit for unit in units if unit.kind == self.kind)

    def within(self, limits: Limits) -> Trial:
        """The largest of these that keeps the limits, as far as it goes: of fewer sequences, then of shorter ones. A
        vocabulary becomes smaller where its weights alone are too much, or its products for the fewest tokens."""
        trial = self
        while trial._weight_bytes > limits.bytes and trial.model.vocab > _SMALLEST_VOCABULARY:
            trial = trial._with_half_the_vocabulary()
        while not trial._keeps(limits) and trial.sequences * trial.seq_len > _FEWEST_TOKENS:
            trial = trial._with_half_the_tokens()
        while not trial._keeps(limits) and trial.model.vocab > _SMALLEST_VOCABULARY:
            trial = trial._with_half_the_vocabulary()
        return trial

    def repeats(self, limits: Limits, wanted: int, paced_s: float) -> int:
        """How often it is passed: as is wanted, but no longer than a few of the largest trials take, nor than some
        seconds of an emulated chip that takes `paced_s`."""
        most = min(_FEW * limits.flops / max(1.0, sum(self._flops)), _PACED_S / max(paced_s, 1e-9))
        return min(wanted, max(_FEW, int(min(most, wanted))))

    def is_soon_passed(self, paced_s: float) -> bool:
        """Whether an emulated chip that takes `paced_s` passes it a few times in a moment."""
        return _FEW * paced_s <= _SOON_S

    def shares_of(self, whole: Trial) -> tuple[float, float]:
        """Of the times of forward and backward for all sequences of `whole`: by their products, or by tokens and
        parameters where it has none."""
        (forward, backward), (all_forward, all_backward) = self._sizes, whole._sizes
        return forward / all_forward, backward / all_backward

    def _keeps(self, limits: Limits) -> bool:
        return sum(self._flops) <= limits.flops and self._passing_bytes <= limits.bytes

    @property
    def _flops(self) -> tuple[float, float]:
        """Of a forward and a backward."""
        each, forward = self.sequences / self.tp, self.work.forward_flops
        return each * forward, each * (self.work.backward_flops + self.work.remade_flops)

    @property
    def _sizes(self) -> tuple[float, float]:
        passing = float(self.sequences * self.seq_len * self.work.parameters)
        return self._flops if self.work.forward_flops else (passing, passing)

    @property
    def _weight_bytes(self) -> float:
        return 2 * ITEM_BYTES[self.precision] * self.work.parameters / self.tp

    @property
    def _passing_bytes(self) -> float:
        work = self.work
        split = work.activation_bytes - work.whole_bytes + work.forward_bytes + work.backward_bytes + work.remade.split
        each = work.whole_bytes + work.boundary_bytes + split / self.tp
        if self.packed:
            return self.sequences * (each + sum(work.masks.values()))
        return self.sequences * each + sum(work.plain_masks.values())

    def _with_half_the_tokens(self) -> Trial:
        if self.sequences > 1:
            return replace(self, sequences=self.sequences // 2)
        return replace(self, seq_len=self.seq_len // 2)

    def _with_half_the_vocabulary(self) -> Trial:
        return replace(self, model=self.model.with_vocab(self.model.vocab // 2))
