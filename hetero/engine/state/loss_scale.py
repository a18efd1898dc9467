"""What the loss is multiplied by, so that float16 holds its gradients: one number for the whole job. Torch-free.

The rule and its numbers are those of `torch.amp.GradScaler`: half of it after a step with a gradient that is not
finite, whose update is skipped, and twice as much after so many steps in succession without one. As there, it is the
scale of the mean loss over all tokens of a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hetero.monitoring.notice import Notice
from hetero.monitoring.record import UNSCALED
from hetero.words.options import LossScaleOptions

_MOST = 2.0**100
"""Where it stops to rise: the next would overflow float32."""


@dataclass(frozen=True)
class LossScale:
    """The scale of the next step. `good_steps` are those since it was another, or too large. Whoever hears of the same
    steps has the same one. Where it is not `used`, no pool computes in float16: then it waits for one that does."""

    options: LossScaleOptions
    scale: float
    good_steps: int = 0
    used: bool = False

    @classmethod
    def of(cls, options: LossScaleOptions, kept: Mapping[str, Any]) -> LossScale:
        """As a checkpoint has `kept` it, else the first one."""
        return cls(options, float(kept.get("loss_scale") or options.initial), int(kept.get("good_steps") or 0))

    def where(self, precisions: Iterable[str]) -> LossScale:
        """The same under a plan whose pools compute in these."""
        return replace(self, used="float16" in precisions)

    @property
    def value(self) -> float:
        return self.scale if self.used else UNSCALED

    def per_token(self, tokens: int) -> float:
        """What the sum of the losses of a step's `tokens` is multiplied by: of all tokens, since how many are counted
        is known when their losses are."""
        return self.scale / tokens if self.used else 1.0

    def after(self, skipped: bool, counted: float | None = None) -> LossScale:
        """That of the step after one whose update was skipped, or was not. One without a counted token tells nothing
        of it (None: some were)."""
        if not self.used or counted == 0:
            return self
        if skipped:
            return replace(self, scale=max(self.scale / 2, UNSCALED), good_steps=0)
        if self.good_steps + 1 >= self.options.grow_every:
            return replace(self, scale=min(self.scale * 2, _MOST), good_steps=0)
        return replace(self, good_steps=self.good_steps + 1)

    def kept(self) -> dict[str, float]:
        """What a checkpoint keeps of it."""
        return {"loss_scale": self.scale, "good_steps": self.good_steps}


def told(before: LossScale, after: LossScale, facts: Mapping[str, int | None]) -> list[Notice]:
    """What the journal should know of a step: another scale, and that it can fall no further."""
    if before.value == after.value:
        return []
    kind = "loss_scale_least" if after.value == UNSCALED else "loss_scale"
    return [Notice(kind, {"was": before.value, "scale": after.value}, facts["step"], facts["epoch"])]
