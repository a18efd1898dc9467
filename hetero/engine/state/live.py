"""State that moves while its run stands still: from the ranks that hold it to those that a new plan gives it to.

Nothing is written down. What a rank keeps is not even copied, where the new plan cuts it as the old one did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from time import perf_counter

import torch

from backends.backend import Backend
from bridge.layout.layout import Region
from bridge.port.port import Port
from bridge.rank import RankId
from hetero.engine.state.loss_scale import LossScale
from hetero.engine.state.moving import Movement, Pair, message_bytes
from hetero.engine.state.optimizer import moment_kinds
from hetero.engine.state.routes import (
    PARAMETER,
    VALUE,
    WIDE,
    Key,
    Shard,
    Side,
    Transfer,
    crossing_bytes,
    most_pairs,
    peak_bytes,
    rounds,
)
from hetero.engine.state.state import State, owned_by, places_of
from hetero.engine.step.stage import DTYPES, NOWHERE, updates_in_host
from hetero.engine.wiring import active_ranks, tensor_holdings
from hetero.words.orders import Moved
from hetero.words.spec import RunSpec

CLAIM = "state on its way"
Tensors = Mapping[Key, torch.Tensor]


class LiveMove:
    """From the epoch `before`, which has given back all but its state, to `after`, over channels of the latter."""

    def __init__(self, before: RunSpec, after: RunSpec, me: RankId, backend: Backend, port: Port) -> None:
        if (before.model, before.train.tuning, _rule(before)) != (after.model, after.train.tuning, _rule(after)):
            raise ValueError("state that lives is of one model, one tuning of it, and one optimizer's rule")
        self._before, self._after, self._me, self._backend = before, after, me, backend
        self._tensors = tensor_holdings(after)
        self._movement = Movement(me, after.epoch, backend, port)

    def run(self, state: State) -> tuple[State, Moved]:
        """This rank's state under the new plan; `state` must not be used any more. All ranks come here at once.

        Raises OutOfMemory where an emulated chip has no room for both plans' state, and what the bridge does."""
        began = perf_counter()
        self._share_numbers(state)
        before, after = self._sides(state)
        steps = rounds(before, after)
        most_bytes = message_bytes(most_pairs(steps))
        peak = peak_bytes(before, after, self._me, steps[0], most_bytes)
        had, will = before.shards(self._me), after.shards(self._me)
        self._backend.claim(CLAIM, peak - self._beside_chip(had, will))
        moved = self._move(state, had, will, steps, most_bytes)
        self._backend.release(CLAIM)
        self._movement.close()
        sent = {pool: nbytes - self._numbers.get(pool, 0) for pool, nbytes in self._movement.sent_bytes.items()}
        return moved, Moved(sent, crossing_bytes(steps, self._me), peak, perf_counter() - began)

    def _share_numbers(self, state: State) -> None:
        """Who joins hears of updates and the loss scale from those who were there."""
        were, will = (_active(spec) for spec in (self._before, self._after))
        joining = [rank for rank in will if rank not in were]
        source_of = {rank: were[number % len(were)] for number, rank in enumerate(joining)}
        kept = state.loss_scale.kept()
        mine = torch.tensor([state.updates, kept["loss_scale"], kept["good_steps"]], dtype=torch.float64)
        came = torch.empty_like(mine)
        out = {Pair(rank, mine.dtype): [mine] for rank, source in source_of.items() if source == self._me}
        into = {Pair(source_of[self._me], mine.dtype): [came]} if self._me in source_of else {}
        self._movement.run("numbers", out, into, mine.nbytes)
        self._numbers = self._movement.sent_bytes
        if into:
            updates, scale, good_steps = came.tolist()
            heard = {"loss_scale": scale, "good_steps": int(good_steps)}
            state.updates, state.loss_scale = int(updates), LossScale.of(self._after.train.loss_scale, heard)

    def _sides(self, state: State) -> tuple[Side, Side]:
        kinds = moment_kinds(self._before.train.optimizer) if state.updates else ()
        before = Side(tensor_holdings(self._before), self._before.plan.precisions(), kinds)
        return before, Side(self._tensors, self._after.plan.precisions(), kinds)

    def _move(
        self,
        state: State,
        had: Mapping[Key, Shard],
        will: Mapping[Key, Shard],
        steps: Sequence[Sequence[Transfer]],
        most_bytes: int,
    ) -> State:
        old = state.keyed()
        new = {key: self._kept(old, had, key, shard) for key, shard in will.items()}
        self._carry("first round", steps[0], old, new, most_bytes)
        for key, value in new.items():
            if key.kind == VALUE and key._replace(kind=PARAMETER) in new and value is not old.get(key):
                value.copy_(new[key._replace(kind=PARAMETER)])
        self._carry("second round", steps[1], new, new, most_bytes)
        scale = LossScale.of(self._after.train.loss_scale, state.loss_scale.kept())
        places = places_of(self._tensors, self._me)
        owned, frozen = (owned_by(self._tensors, self._me, trains) for trains in (True, False))
        return State.of(new, places, owned, frozen, step=self._after.start, updates=state.updates, loss_scale=scale)

    def _carry(self, name: str, transfers: Sequence[Transfer], old: Tensors, new: Tensors, most_bytes: int) -> None:
        out: defaultdict[Pair, list[torch.Tensor]] = defaultdict(list)
        into: defaultdict[Pair, list[torch.Tensor]] = defaultdict(list)
        for key, dtype, piece in transfers:
            if piece.source == self._me:
                source = _source(old, key, DTYPES[dtype])
                view = _box(source, piece.source_slices)
                if not piece.local:
                    out[Pair(piece.target, DTYPES[dtype])].append(view)
                elif source is not new[key]:
                    _box(new[key], piece.target_slices).copy_(view)
            elif piece.target == self._me:
                into[Pair(piece.source, DTYPES[dtype])].append(_box(new[key], piece.target_slices))
        self._movement.run(name, out, into, most_bytes)

    def _kept(self, old: Tensors, had: Mapping[Key, Shard], key: Key, shard: Shard) -> torch.Tensor:
        """What is there as it is wanted, or else memory where it is wanted."""
        in_host, there = _in_host(self._after, self._me, key), old[key] if had.get(key) == shard else None
        if there is not None and there.device.type == ("cpu" if in_host else self._backend.device.type):
            return there
        shape, dtype = [stop - start for start, stop in shard.region], DTYPES[shard.dtype]
        if in_host:
            return self._backend.beside(torch.empty(shape, device=NOWHERE), dtype)
        return torch.empty(shape, dtype=dtype, device=self._backend.device)

    def _beside_chip(self, had: Mapping[Key, Shard], will: Mapping[Key, Shard]) -> int:
        """Of the peak, the bytes in host memory, but for those that come to the chip as they are."""
        were, will_be = (
            {key for key in shards if _in_host(spec, self._me, key)}
            for spec, shards in ((self._before, had), (self._after, will))
        )
        fresh = sum(will[key].nbytes for key in will_be if had.get(key) != will[key])
        coming = sum(will[key].nbytes for key in were & will.keys() - will_be if had[key] == will[key])
        return sum(had[key].nbytes for key in were) + fresh - coming


def _in_host(spec: RunSpec, me: RankId, key: Key) -> bool:
    """Whether a plan has it in host memory: masters and moments, if no chip computes with them."""
    if not updates_in_host(spec.plan, me) or key.kind == VALUE:
        return False
    return key.kind != PARAMETER or spec.plan.precisions()[me.pool] != WIDE


def _source(tensors: Tensors, key: Key, dtype: torch.dtype) -> torch.Tensor:
    """What is sent as `dtype`: the tensor that has it, else the float32 one, to be rounded; of what is frozen, and has
    none here, the value."""
    found = tensors.get(key)
    if found is not None and found.dtype == dtype:
        return found
    wide, value = key._replace(kind=PARAMETER), key._replace(kind=VALUE)
    return tensors[wide] if wide in tensors else tensors[value]


def _box(tensor: torch.Tensor, region: Region) -> torch.Tensor:
    return tensor[tuple(slice(*bounds) for bounds in region)]


def _active(spec: RunSpec) -> list[RankId]:
    return [rank for ranks in active_ranks(spec.plan).values() for rank in ranks]


def _rule(spec: RunSpec) -> tuple[str, tuple[str, ...]]:
    optimizer = spec.train.optimizer
    return optimizer.name, moment_kinds(optimizer)
