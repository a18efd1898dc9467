"""What messages over a stage's boundaries take on its chips, beside what computes there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from balancer.cost.workload import Workload
from balancer.plan.plan import Chunk, PipelinePlan, Place, Plan, StagePlan
from balancer.schedule.action import COMPUTING, Actions, Kind, Purpose
from bridge.codec import CODECS, Codec
from bridge.precision import ITEM_BYTES

MESSAGES = 2  # kept for each boundary of a stage to another pool
_TEXT_BYTES, _POSITION_BYTES = 16, 8  # of a token and its label, and of its position in a document, as int64
Codecs = Callable[[str, str], tuple[str, str]]
"""Of two pools, by the names that codecs have: of what goes forward over a boundary, and of what comes back."""


def uncoded(_: str, __: str) -> tuple[str, str]:
    return ("none", "none")


def message_bytes(workload: Workload, plan: Plan, place: Place, precision: str, codecs: Codecs = uncoded) -> int:
    """What is there beside what is in use. Between pools, as its rank is a message ahead of its chip, one has come
    early and one has not left yet; inside one, a gradient has not left. And a step's text."""
    pipeline, messages, scratch = plan.pipelines[place[0]], 0, Counter[str]()
    for a, b in pairwise(pipeline.chunks()):
        if a.stage == b.stage or place[1] not in (a.stage, b.stage):
            continue
        size = held_bytes(workload, pipeline, a.index, pipeline.stages[place[1]])
        if _in_one_pool(pipeline, a, b):
            messages += size if b.stage == place[1] else 0
            continue
        messages += MESSAGES * size
        numbers = size // ITEM_BYTES[precision]
        for codec in _coding(codecs(*(pipeline.stages[stage].pool for stage in (a.stage, b.stage))), precision):
            messages += codec.encoded_bytes(numbers, precision)
            scratch[codec.name] = max(scratch[codec.name], codec.scratch_bytes(numbers))
    reads = workload.packed or {0, len(workload.units) - 1} & set(pipeline.stages[place[1]].unit_indices())
    text = _TEXT_BYTES + (_POSITION_BYTES if workload.packed else 0)
    return messages + scratch.total() + (text * pipeline.share * workload.seq_len if reads else 0)


def _coding(names: tuple[str, str], precision: str) -> list[Codec]:
    """Those of a boundary that save something: one message of each is on the chip as bytes. What a gate measures one
    with is less than a backward needs."""
    return [CODECS[name] for name in names if CODECS[name].estimate_ratio(precision) < 1]


def posted_bytes(
    lists: Sequence[Actions], stage: int, placed: Sequence[int], sizes: Mapping[int, float]
) -> Iterator[float]:
    """While each computation of a stage runs: the messages from its pool that it has posted receives for, of
    these `sizes` by boundary. They are what the next one takes, and what their senders have sent before that
    (`hetero/transfer/native_messages.py`)."""
    if not any(sizes.values()):
        yield from (0.0 for action in lists[stage] if action.kind in COMPUTING)
        return
    coming = {s: _sent_to(stage, lists[s], placed) for s in set(placed)}
    posted, there = Counter[_Key](), 0.0

    def post(key: _Key) -> float:
        more = 0.0
        while not posted[key]:
            sent = next(coming[_sender(key, placed)])
            posted[sent] += 1
            more += sizes[sent[1]]
        return more

    for now, then in pairwise(_received(lists[stage], sizes)):
        for key in now:
            there += post(key) - sizes[key[1]]
            posted[key] -= 1
        there += sum(map(post, then))
        yield there


_Key = tuple[Purpose | None, int]


def _sender(key: _Key, placed: Sequence[int]) -> int:
    purpose, boundary = key
    return placed[boundary if purpose == "activation" else boundary + 1]


def _received(actions: Actions, sizes: Mapping[int, float]) -> Iterator[list[_Key]]:
    """What is taken before each computation, and after the last one."""
    found: list[_Key] = []
    for action in actions:
        if action.kind in COMPUTING:
            yield found
            found = []
        elif action.kind is Kind.RECV and sizes.get(action.boundary):
            found.append((action.purpose, action.boundary))
    yield found


def _sent_to(stage: int, actions: Actions, placed: Sequence[int]) -> Iterator[_Key]:
    for action in actions:
        if action.kind is Kind.SEND and placed[action.chunk + (1 if action.purpose == "activation" else -1)] == stage:
            yield action.purpose, action.boundary


def boundary_bytes(workload: Workload, pipeline: PipelinePlan, chunk: int) -> int:
    """Of a micro-batch behind a chunk."""
    if chunk < 0:
        return 0
    return pipeline.micro_batch * workload.units[pipeline.chunks()[chunk].units[1] - 1].boundary_bytes


def held_bytes(workload: Workload, pipeline: PipelinePlan, chunk: int, stage: StagePlan) -> int:
    """The same, as one chip of a stage beside it holds it."""
    return boundary_bytes(workload, pipeline, chunk) // (stage.tp if stage.sequence_parallel else 1)


def native_bytes(workload: Workload, pipeline: PipelinePlan) -> dict[int, int]:
    """Of a micro-batch behind each chunk that another stage of the same pool follows."""
    followed = (a for a, b in pairwise(pipeline.chunks()) if a.stage != b.stage and _in_one_pool(pipeline, a, b))
    return {a.index: pipeline.micro_batch * workload.units[a.units[1] - 1].boundary_bytes for a in followed}


def _in_one_pool(pipeline: PipelinePlan, a: Chunk, b: Chunk) -> bool:
    return pipeline.stages[a.stage].pool == pipeline.stages[b.stage].pool
