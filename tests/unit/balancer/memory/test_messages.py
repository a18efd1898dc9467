"""What messages take on a chip: receives as `hetero/transfer/native_messages.py` posts them, and what codecs need."""

from __future__ import annotations

from itertools import pairwise

import pytest

from balancer.completion.completion import complete
from balancer.memory.memory import stage_bytes
from balancer.memory.messages import posted_bytes
from balancer.problem import Problem
from balancer.schedule.action import Kind
from balancer.schedule.lowering import actions_of
from bridge.codec import BLOCK, CODECS, TILE
from tests.unit.balancer.cases import plan, pool, topology, workload


def posted(written, stage, sizes):
    pipeline = complete(written, Problem(topology(pool("a", 2)), workload(8, batch=6))).pipelines[0]
    lists = actions_of(pipeline, "1f1b")
    computed = [action for action in lists[stage] if action.kind in (Kind.F, Kind.B)]
    return dict(zip(computed, posted_bytes(lists, stage, pipeline.stage_of_chunk(), sizes), strict=True))


def test_a_receive_is_posted_one_computation_before_its_use_however_deep_the_pipeline() -> None:
    two = plan((6, [("a", 1, (0, 4)), ("a", 1, (4, 8))]))
    last = list(posted(two, 1, {0: 7.0}).items())
    for (action, there), (following, _) in pairwise(last):
        assert there == (7.0 if following.kind is Kind.F else 0.0), action
    assert all(there == 0.0 for there in posted(two, 1, {}).values()), "what comes over a bridge lies in host memory"


@pytest.mark.parametrize(("name", "work_bytes"), [("none", 0), ("bf16", 0), ("int8", 4), ("fp8", 6)])
def test_a_codec_has_its_bytes_and_what_its_kernel_works_in(name: str, work_bytes: int) -> None:
    chips, work = topology(pool("a", 1), pool("b", 1)), workload(8, batch=2)
    two = complete(plan((2, [("a", 1, (0, 4)), ("b", 1, (4, 8))])), Problem(chips, work))
    plain, coded = (
        stage_bytes(work, two, 0, 0, "float32", codecs=lambda a, b, names=names: names).messages
        for names in (("none", "none"), (name, name))
    )
    codec, numbers = CODECS[name], 1_000_000 // 4
    encoded = 0 if name == "none" else codec.encoded_bytes(numbers, "float32")
    assert coded - plain == 2 * encoded + work_bytes * numbers
    assert codec.scratch_bytes(10**9) == work_bytes * TILE * BLOCK
