"""The order in which each rank of a pool issues its operations, recorded without processes, and replayed by the law of
`backends/strict.py`: no operation moves any data, so each rank's can be had alone."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import nn

from backends.communicator import Communicator
from backends.cpu import CpuBackend
from backends.watch import Watch
from balancer.plan.plan import Plan
from bridge.rank import RankId
from hetero.engine import epoch as epoch_module
from hetero.engine.epoch import Epoch
from hetero.engine.state.origin import begin
from hetero.engine.state.saving import Saver
from hetero.engine.step import totals as totals_module
from hetero.engine.step.backward import backward
from hetero.engine.step.samples import PipelineBatch
from hetero.engine.step.stage import RankPlace, place_of
from hetero.engine.wiring import EpochGroups, tensor_holdings
from hetero.layers.auxiliary import AuxiliaryLoss
from hetero.layers.group import TensorGroup
from hetero.layers.product import product, summed_product
from hetero.layers.weight_gradients import ProductPair, WeightGradients
from hetero.models.batch import Batch
from hetero.models.registry import architecture
from hetero.words.spec import RunSpec

SEQ_LEN = 4


class Operation(NamedTuple):
    """`row` is the communicator that it lies on: of a pair, for a message; `ends` are all who must come to it."""

    row: Hashable
    kind: str
    ends: frozenset[int]


@dataclass
class Order:
    """What one rank's host does: issues an operation, or waits for the n-th one that it issued."""

    issued: list[Operation] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)
    met: set[Hashable] = field(default_factory=set)

    def issue(self, row: Hashable, kind: str, ends: Iterable[int]) -> Waitable:
        if row not in self.met:
            self.met.add(row)
            self._add(row, "first contact", ends).wait()
        return self._add(row, kind, ends)

    def _add(self, row: Hashable, kind: str, ends: Iterable[int]) -> Waitable:
        self.issued.append(Operation(row, kind, frozenset(ends)))
        self.events.append(("issue", len(self.issued) - 1))
        return Waitable(self, len(self.issued) - 1)


class Waitable(NamedTuple):
    order: Order
    number: int

    def wait(self) -> None:
        self.order.events.append(("wait", self.number))

    def is_completed(self) -> bool:
        return False


class Recorder(Communicator):
    def __init__(self, name: str, me: int, members: Sequence[int], order: Order) -> None:
        super().__init__(name, me, members, torch.device("cpu"), Watch())
        self._order = order

    def start_all_reduce(self, x: torch.Tensor, largest: bool = False) -> Waitable:
        return self._together("all-reduce")

    def start_all_gather(self, whole: torch.Tensor, part: torch.Tensor) -> Waitable:
        return self._together("all-gather of rows")

    def start_reduce_scatter(self, part: torch.Tensor, whole: torch.Tensor) -> Waitable:
        return self._together("reduce-scatter")

    def all_gather(self, parts: Sequence[torch.Tensor]) -> None:
        self._together("all-gather").wait()

    def all_to_all(self, inward: torch.Tensor, in_sizes: Any, outward: torch.Tensor, out_sizes: Any) -> Waitable:
        return self._together("exchange")

    def send(self, x: torch.Tensor, target: int) -> Waitable:
        return self._message(self.me, target)

    def receive(self, x: torch.Tensor, source: int) -> Waitable:
        return self._message(source, self.me)

    def _together(self, kind: str) -> Waitable:
        return self._order.issue((self.name, self.members), kind, self.members)

    def _message(self, source: int, target: int) -> Waitable:
        pair = {source, target}
        return self._order.issue((self.name, frozenset(pair)), f"message from {source} to {target}", pair)


class Stuck(Exception):
    """Ranks wait for each other in a circle, or for operations that do not match."""


def replay(orders: dict[int, Order], room: int) -> None:
    """Raises Stuck where chips that have room for so many operations at once would not come to the end."""
    hosts: dict[int, int] = dict.fromkeys(orders, 0)
    pending: dict[int, list[int]] = {me: [] for me in orders}
    done: dict[int, set[int]] = {me: set() for me in orders}
    rows = {me: _positions(order) for me, order in orders.items()}
    while True:
        moved = [_advance(orders[me], hosts, me, pending[me], done[me]) for me in orders]
        running = {me: dict(_running(orders[me], rows[me], pending[me], room)) for me in orders}
        over = [(me, place) for me in orders for place in running[me] if _all_there(orders, running, me, place)]
        for me, place in over:
            number = running[me][place]
            pending[me].remove(number)
            done[me].add(number)
        if not over and not any(moved):
            break
    if any(pending.values()) or any(hosts[me] < len(order.events) for me, order in orders.items()):
        raise Stuck({me: [str(orders[me].issued[n]) for n in pending[me][:3]] for me in orders})


def _positions(order: Order) -> list[tuple[Hashable, int]]:
    """Which operation of its row each one is."""
    counts: Counter[Hashable] = Counter()
    found = []
    for operation in order.issued:
        found.append((operation.row, counts[operation.row]))
        counts[operation.row] += 1
    return found


def _advance(order: Order, hosts: dict[int, int], me: int, pending: list[int], done: set[int]) -> bool:
    """The host goes on until it waits for something that is not over."""
    before = hosts[me]
    while hosts[me] < len(order.events):
        what, number = order.events[hosts[me]]
        if what == "issue":
            pending.append(number)
        elif number not in done:
            break
        hosts[me] += 1
    return hosts[me] > before


def _running(
    order: Order, places: list[tuple[Hashable, int]], pending: list[int], room: int
) -> Iterator[tuple[tuple[Hashable, int], int]]:
    """The oldest of each row, as many as the chip has room for."""
    seen: set[Hashable] = set()
    for number in pending:
        row = order.issued[number].row
        if row not in seen:
            seen.add(row)
            yield places[number], number
        if len(seen) == room:
            return


def _all_there(
    orders: dict[int, Order], running: dict[int, dict[tuple[Hashable, int], int]], me: int, place: tuple[Hashable, int]
) -> bool:
    mine = orders[me].issued[running[me][place]]
    if any(place not in running[other] for other in mine.ends):
        return False
    theirs = {orders[other].issued[running[other][place]] for other in mine.ends}
    if len(theirs) > 1:
        raise Stuck(f"these meet: {', '.join(map(str, theirs))}")
    return True


# What a rank is made of, without arithmetic.


class Chunk:
    """Each unit is one product, as a split one's last: it is summed forward, in slices if so asked, and the gradient of
    what went in is summed backward. A unit has all gradients when that is over; every other one, which has nothing
    before its product, while it runs."""

    def __init__(
        self,
        index: int,
        units: dict[int, list[str]],
        sizes: dict[str, int],
        group: TensorGroup,
        products: WeightGradients,
    ) -> None:
        self.index, self._units, self._sizes, self._group, self._products = index, units, sizes, group, products
        self.names = [name for names in units.values() for name in names]
        (self._size,) = sizes.values()
        self._weights = {unit: nn.Parameter(torch.zeros(self._size, self._size)) for unit in units}
        products.weights |= set(self._weights.values())
        self.head = False
        self._made: Callable[[int, Iterable[str]], None] | None = None

    def __call__(
        self, boundary: dict[str, torch.Tensor], batch: Batch, before: Callable[[int], None] | None = None
    ) -> dict[str, torch.Tensor]:
        (name,), rows = self._sizes, SEQ_LEN // (self._group.size if self._group.sequence_parallel else 1)
        x = boundary.get(name, torch.zeros(1, rows, self._size, requires_grad=True)).view(1, rows, self._size)
        for unit in self._units:
            if before is not None:
                before(unit)
            if x.requires_grad and not unit % 2:
                x.register_hook(lambda _, unit=unit: self._tell(unit))
            x = self._split(x, self._weights[unit])
        return {"loss": x.sum()} if self.head else {name: x}

    def _split(self, x: torch.Tensor, weight: nn.Parameter) -> torch.Tensor:
        group, products = self._group, self._products
        x = group.copy_in(x, products.flush)
        if group.slices > 1:
            return summed_product(x, weight, products, group)
        return group.reduce_out(product(x, weight, None, products, deferred=group.size > 1))

    def _tell(self, unit: int, _: Any = None) -> None:
        if self._made is not None:
            self._made(unit, self._units[unit])

    def differentiate(self, outputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        backward(outputs, gradients)

    @contextmanager
    def telling(self, made: Callable[[int, Iterable[str]], None]) -> Iterator[None]:
        self._made = made
        hooks = {self._weights[unit]: partial(self._tell, unit) for unit in self._units if unit % 2}
        with self._products.telling(hooks):
            yield
        self._made = None

    def keeping(self) -> AbstractContextManager[deque[ProductPair]]:
        return self._products.keeping()

    def make(self, kept: deque[ProductPair], made: Callable[[int, Iterable[str]], None]) -> None:
        for unit, names in reversed(self._units.items()):
            self._products.make(kept.popleft())
            made(unit, names)
        assert not kept


class Stage:
    def __init__(self, dims: Any, plan: Plan, place: RankPlace, group: TensorGroup, *_: Any) -> None:
        model, self.dtype, self.reads_text, self.computes_loss = architecture(dims), torch.float32, False, False
        self.chunks: dict[int, Chunk] = {}
        self.layouts: dict[str, Any] = {}
        self.auxiliary = AuxiliaryLoss()
        products = WeightGradients()
        last = len(model.units) - 1
        for chunk in plan.pipelines[place.pipeline].chunks():
            if chunk.stage != place.stage:
                continue
            units: dict[int, list[str]] = {}
            for unit in range(*chunk.units):
                found = model.tensors(unit, group.size, group.sequence_parallel).values()
                known = {name for names in units.values() for name in names}
                units[unit] = [tensor.name for tensor in found if tensor.name not in known]
                self.layouts |= {tensor.name: tensor.layout for tensor in found}
            self.chunks[chunk.index] = Chunk(chunk.index, units, model.boundary, group, products)
            self.chunks[chunk.index].head = last in units
            self.computes_loss |= last in units
        self.parameters = {
            name: nn.Parameter(torch.zeros(layout.local_shape(group.rank))) for name, layout in self.layouts.items()
        }

    def gradients(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        return {name: torch.zeros_like(self.parameters[name]) for name in names}

    def clear(self) -> None: ...


class Text:
    fingerprint = None

    def __init__(self, *_: Any) -> None: ...

    def batch(self, _: int) -> PipelineBatch:
        nothing = torch.empty(0, dtype=torch.int64)
        return PipelineBatch(Batch(nothing, nothing), 1, counted=1)

    held_out_batch = batch


def orders_of(spec: RunSpec, pool: str, count: int) -> dict[int, Order]:
    """What each rank of a pool issues from the making of an epoch to the end of its steps."""
    return {index: _order_of(spec, RankId(pool, index), count) for index in range(count)}


def _order_of(spec: RunSpec, me: RankId, count: int) -> Order:
    order = Order()

    def all_reduce(values: torch.Tensor, **_: Any) -> None:
        order.issue("host", "sum", _active(spec)).wait()
        values += 1  # somebody has tokens

    host = SimpleNamespace(all_reduce=all_reduce, ProcessGroup=object)
    with (
        patch.object(epoch_module, "Stage", Stage),
        patch.object(epoch_module, "Text", Text),
        patch.object(totals_module, "dist", host),
    ):
        tensors, world = tensor_holdings(spec), RecordedWorld(me, count, order)
        groups = EpochGroups(spec, world, tensors)  # type: ignore[arg-type]
        if (place := place_of(spec.plan, me)) is not None:
            state = begin(spec, tensors, me, world.backend)
            saver = Saver(me, world.backend, print, print)
            running = Epoch(spec, place, world, groups, tensors, None, state, saver)  # type: ignore[arg-type]
            met = order.met - {"host"}
            for _ in range(spec.steps):
                running.run_step()
            assert order.met - {"host"} == met, "a step meets somebody for the first time"
            running.close()
    return order


def _active(spec: RunSpec) -> list[int]:
    return [chip for _, stage in spec.plan.stages() for chip in stage.chips or ()]


class RecordedWorld:
    def __init__(self, me: RankId, size: int, order: Order) -> None:
        self.backend, self.rank, self.size, self._order = CpuBackend(), me, size, order

    def communicator(self, name: str, indices: Iterable[int]) -> Recorder | None:
        members = sorted(indices)
        return Recorder(name, self.rank.index, members, self._order) if self.rank.index in members else None

    def group(self, indices: Iterable[int]) -> None: ...
