"""How many communicators of its family's collectives a chip is in under a plan, and the memory that they take.

As `hetero/engine/wiring.py` makes them: few, for each has buffers of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from backends.chip import ChipSpec
from balancer.cost.sync_traffic import SharedUnits, shared_state
from balancer.cost.workload import Workload
from balancer.plan.plan import Place, Plan, StagePlan

_BOARD = 8
"""Chips that NVLink joins in a host, on every board of the catalogue."""


def communicator_bytes(workload: Workload, plan: Plan, place: Place, chip: ChipSpec) -> int:
    """On each chip of one stage: of its tensor-parallel group, of the chips that it shares state with and has
    all-to-alls with, and two, one for each direction, with each chip that a stage boundary inside the pool joins it
    with."""
    shared, tensor = sharing(workload, plan, place), _stage(plan, place).tp > 1
    peers = sum(_stage(plan, one).tp for one in shared) - 1 if len(shared) > 1 else 0
    groups = (tensor + (len(shared) > 1)) * chip.communicator_bytes + all_to_all_bytes(peers, chip)
    return groups + 2 * _neighbours(plan, place) * chip.pair_communicator_bytes


def all_to_all_bytes(peers: int, chip: ChipSpec) -> int:
    """Of all-to-alls, where a chip's collectives have buffers for each other one: larger for those on its own board."""
    if not chip.exchange_peer_bytes:
        return 0
    near = min(peers, _BOARD - 1)
    return near * chip.exchange_peer_bytes + (peers - near) * chip.pair_communicator_bytes


def sharing(workload: Workload, plan: Plan, place: Place) -> frozenset[Place]:
    """The stages of a place's pool that hold state in common with it, or with one that does; itself among them. All
    stages of one plan ask, and are answered at once."""
    shared = shared_state(plan, workload)
    known = next((groups for asked, groups in _KNOWN if asked is shared), None)
    if known is None:
        known = _groups(plan, shared)
        _KNOWN.append((shared, known))
    return known.get(place, frozenset({place}))


_KNOWN: deque[tuple[list[SharedUnits], dict[Place, frozenset[Place]]]] = deque(maxlen=4)
"""Of the plans that were asked for last."""


def _groups(plan: Plan, shared: Sequence[SharedUnits]) -> dict[Place, frozenset[Place]]:
    """By place, where there are others."""
    found: dict[Place, set[Place]] = {}
    for uses in {tuple(one.uses) for one in shared}:
        for pool in {_stage(plan, use).pool for use in uses}:
            held = {use for use in uses if _stage(plan, use).pool == pool}
            group = held.union(*(found[use] for use in held if use in found))
            found |= dict.fromkeys(group, group)
    return {place: frozenset(group) for place, group in found.items()}


def _neighbours(plan: Plan, place: Place) -> int:
    """Chips of the pool: a boundary's tensor is spread over the smaller of two groups, and gathered in the larger."""
    mine, found = _stage(plan, place), set[int]()
    for a, b in pairwise(plan.pipelines[place[0]].stage_of_chunk()):
        if a != b and place[1] in (a, b):
            found.add(b if a == place[1] else a)
    others = [_stage(plan, (place[0], s)) for s in found]
    return sum(max(1, other.tp // mine.tp) for other in others if other.pool == mine.pool)


def _stage(plan: Plan, place: Place) -> StagePlan:
    return plan.pipelines[place[0]].stages[place[1]]
