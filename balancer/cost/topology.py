"""Which chips there are and how fast bytes move between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from backends.chip import ChipSpec
from backends.sizes import size_text
from balancer.cost.kernels import FITTED, Kernels
from balancer.errors import PlanError, did_you_mean
from bridge.precision import crossing
from bridge.words.channel import SYNC_BUCKET_BYTES


@dataclass(frozen=True)
class PoolSpec:
    """Equal chips of one family on fast links. `tp` is a constraint (None: the balancer chooses);
    `memory_bytes` is what one chip may use, `memory_told_by` who says so; chips 0..count-1 lie `chips_per_host` to a
    host, in order."""

    name: str
    chip: ChipSpec
    count: int
    chips_per_host: int
    memory_bytes: int
    tp: int | None = None
    precision: str = "float32"
    memory_told_by: str = "its data sheet, less the reserve"
    paced_as: str | None = None
    """Of an emulated pool: the precision whose speed it has, where that is not its own."""
    network_bytes_per_s: float = inf
    """What one host carries to all other pools together, each way."""
    fabric_bytes_per_s: float | None = None
    """A chip's share of what carries bytes to other hosts of the pool, in one direction; None where that is as fast as
    the interconnect."""

    @property
    def memory_limit(self) -> str:
        """In words."""
        return f"{size_text(self.memory_bytes)} by {self.memory_told_by}"

    @property
    def shaped(self) -> bool:
        """Whether its kernels' shapes make a difference, as far as is known."""
        return self.chip.matrix_efficiency is not None

    def host_of(self, chip: int) -> int:
        return chip // self.chips_per_host

    def tp_groups(self, tp: int) -> int:
        """How many groups of that size the pool has room for, each inside one host unless it is larger than a host."""
        if tp > self.chips_per_host:
            return self.count // tp
        hosts, rest = divmod(self.count, self.chips_per_host)
        return hosts * (self.chips_per_host // tp) + rest // tp

    def tp_sizes(self) -> tuple[int, ...]:
        """Tp sizes to choose from: the constraint, or powers of two that divide the pool and fit a host."""
        if self.tp is not None:
            return (self.tp,)
        powers = (1 << n for n in range(self.count.bit_length()))
        return tuple(p for p in powers if self.count % p == 0 and p <= self.chips_per_host)

    @property
    def pace(self) -> str:
        """The precision whose speed it has."""
        return self.paced_as or self.precision

    @property
    def matrix_flops_per_s(self) -> float:
        """That of a large product by itself, of a chip whose data sheet has it."""
        return self.chip.peak_flops[self.pace] * (self.chip.matrix_efficiency or self.chip.efficiency)

    @property
    def flops_per_s(self) -> float:
        """One chip's attainable rate in the precision whose speed it has."""
        return self.chip.flops_per_s(self.pace)


@dataclass(frozen=True)
class LinkSpec:
    """What lies between two pools: rate per direction and host pair, and one-way latency; and, of what crosses a stage
    boundary forwards and backwards, the bytes that a codec leaves of it, as a ratio, and these codecs' names."""

    between: tuple[str, str]
    bytes_per_s: float
    latency_s: float
    activation_ratio: float = 1.0
    gradient_ratio: float = 1.0
    codecs: tuple[str, str] = ("none", "none")


@dataclass(frozen=True)
class Topology:
    """`bucket_bytes` is how much of the gradients travels in one message at least, where there is as much."""

    pools: tuple[PoolSpec, ...]
    links: tuple[LinkSpec, ...] = ()
    bucket_bytes: int = SYNC_BUCKET_BYTES
    kernels: Kernels = FITTED

    def pool(self, name: str) -> PoolSpec:
        """Raises PlanError for a pool that the job doesn't have."""
        if found := self._by_name.get(name):
            return found
        raise PlanError("pool", name, "no such pool in the job", did_you_mean(name, (p.name for p in self.pools)))

    @cached_property
    def _by_name(self) -> dict[str, PoolSpec]:
        return {pool.name: pool for pool in self.pools}

    def link(self, a: str, b: str) -> LinkSpec:
        """The link between two pools, or inside one (then the chips' own interconnect, without latency)."""
        if a == b:
            return LinkSpec((a, b), self.pool(a).chip.interconnect_bytes_per_s, 0.0)
        for link in self.links:
            if set(link.between) == {a, b}:
                return link
        raise PlanError("links", [a, b], "no link joins these pools", f"declare a link between {a} and {b}")

    def inside_bytes_per_s(self, pool: PoolSpec, hosts: int, beside: int = 1) -> float:
        """What a chip sends to others of its pool, on as many hosts, where so many chips of a host are at the same."""
        rate = (self.kernels.ring if pool.shaped else 1.0) * pool.chip.interconnect_bytes_per_s
        if hosts == 1 or pool.fabric_bytes_per_s is None:
            return rate
        return min(rate, pool.fabric_bytes_per_s * beside)

    def around_s(self, pool: PoolSpec, copies: int) -> float:
        """What a message takes for its way round so many copies of a stage, beside its bytes."""
        return self.kernels.hop_s * (copies - 1) if pool.shaped else 0.0

    def codecs_between(self, a: str, b: str) -> tuple[str, str]:
        """Of what goes forward over a stage boundary, and of what comes back."""
        return self.link(a, b).codecs

    def crossing(self, a: str, b: str) -> str:
        """The precision of what crosses a stage boundary between two pools."""
        return crossing(self.pool(a).precision, self.pool(b).precision)

    def only(self, names: frozenset[str]) -> Topology:
        """The same without the other pools; order is kept."""
        return replace(self, pools=tuple(p for p in self.pools if p.name in names))
