"""What does not train crosses no link: neither its gradients nor its values."""

from __future__ import annotations

from math import prod

import pytest

from hetero.models.registry import architecture
from tests.distributed.cases import LORA, a1, case_of, n1, pipeline
from tests.distributed.fleet import Standing

STEPS = 3
WAYS = pipeline(2, n1(0, 6)), pipeline(2, a1(0, 6))


def test_bytes_between_pools_are_those_of_what_trains(fleet: Standing) -> None:
    """Each gradient crosses once in a step, and each value back, both in float32; all else is the same."""
    whole, some = case_of("whole", *WAYS, steps=STEPS), case_of("adapters", *WAYS, steps=STEPS, tuning=LORA)
    model = architecture(some.job.dimensions, LORA)
    specs = {spec.name: spec for unit in range(len(model.units)) for spec in model.tensors(unit, 1).values()}
    sizes = dict.fromkeys((True, False), 0)
    for spec in specs.values():
        sizes[spec.trains] += prod(spec.layout.shape)
    assert sizes[True] < sizes[False] / 4
    sent = [fleet.train(case.job, case.plan).bytes_sent for case in (whole, some)]
    assert sent[0] - sent[1] == pytest.approx(8 * STEPS * (sizes[False] - sizes[True]), rel=0.05)
