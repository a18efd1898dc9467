"""The machines of a run as the cluster sees them: pools cut into hosts, and the links between pools. Plain data."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

from bridge.rank import RankId
from bridge.words.endpoint import PaceSpec
from bridge.words.release import RELEASE

LOOPBACK = "127.0.0.1"


def host_id(pool: str, number: int) -> str:
    """The name of a host, which is the name of its endpoint too: `nvidia@0`."""
    return f"{pool}@{number}"


@dataclass(frozen=True)
class FleetPool:
    """Equal chips of one family. `chips_per_host` 0 puts all of them on one host.

    On a cluster, `labels` say which nodes may serve the pool, `resources` what one chip takes of a node.
    """

    name: str
    family: str
    chip: str
    count: int
    chips_per_host: int = 0
    emulate: Mapping[str, Any] | None = None
    python: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    interface: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def emulated(self) -> bool:
        return self.emulate is not None

    @property
    def run(self) -> dict[str, Any]:
        """The pool as its own ranks are told of it: `hetero.engine.spec.PoolRun` as plain data."""
        names = ("family", "chip", "count", "emulate", "chips_per_host")
        return {name: getattr(self, name) for name in names}

    @property
    def on_one_host(self) -> bool:
        return len(self.ranks_by_host()) == 1

    def ranks_by_host(self) -> tuple[tuple[RankId, ...], ...]:
        ranks = [RankId(self.name, index) for index in range(self.count)]
        width = self.chips_per_host or self.count
        return tuple(tuple(ranks[start : start + width]) for start in range(0, self.count, width))


@dataclass(frozen=True)
class FleetLink:
    """How two pools are joined. An emulated link has a rate (bytes/s) and a delay (s), a real one has neither.

    What is "auto" depends on whether two hosts are one machine: there they share memory and hide nothing. `streams`
    None: nobody knows yet how many fill it; one, until `Session.probe` has tried.
    """

    between: tuple[str, str]
    scheme: str = "auto"
    bytes_per_s: float | None = None
    delay_s: float = 0.0
    encrypt: str = "auto"
    streams: int | None = None

    @property
    def pace(self) -> PaceSpec | None:
        """As its endpoints are told of it."""
        return None if self.bytes_per_s is None else PaceSpec(self.bytes_per_s, self.delay_s)

    def way(self, *, one_machine: bool) -> dict[str, Any]:
        """The transport between two hosts, `sealed` and `streams` as a `PeerSpec` has them."""
        shared = one_machine and self.encrypt != "on"
        scheme = ("shm" if shared else "zmq") if self.scheme == "auto" else self.scheme
        sealed = not one_machine if self.encrypt == "auto" else self.encrypt == "on"
        return {"scheme": scheme, "sealed": sealed, "streams": 1 if scheme == "shm" else self.streams or 1}


@dataclass(frozen=True)
class Programs:
    """What a host starts: the endpoint's module, and the `module:function` that a forked rank runs."""

    endpoint: str = "bridge.endpoint"
    rank: str = "hetero.engine.rank:main"


@dataclass(frozen=True)
class Patience:
    """Seconds after which silence counts as death."""

    start_s: float = 300.0
    """A new rank is not ready, or a new agent does not answer, after so long."""
    rank_s: float = 600.0
    """A rank that owes an answer or a step says nothing for so long."""
    stop_s: float = 10.0
    """Ranks that were asked to stop are killed after so long."""
    agent_s: float = 25.0
    """An agent that has answered the driver before does not do so for so long."""


@dataclass(frozen=True)
class HostSpec:
    """One pool's part of one host: what its agent needs to know.

    `address` None: the agent asks its node. `assigned` are the accelerators that a cluster chose for it, by resource;
    None: the machine is the run's own, whose processes see all chips. `secret` is what the pool's processes share,
    `release` the driver's own.
    """

    pool: FleetPool
    number: int
    ranks: tuple[RankId, ...]
    schemes: tuple[str, ...]
    address: str | None = LOOPBACK
    programs: Programs = Programs()
    patience: Patience = Patience()
    assigned: Mapping[str, tuple[str, ...]] | None = None
    secret: str = field(default="", repr=False)
    release: str = RELEASE

    @property
    def id(self) -> str:
        return host_id(self.pool.name, self.number)


@dataclass(frozen=True)
class FleetSpec:
    """All pools and links. `local` keeps everything on this machine's loopback. `secret`, new for each fleet, is what
    each pool has its own from, which travels in the agents' own calls."""

    pools: tuple[FleetPool, ...]
    links: tuple[FleetLink, ...] = ()
    local: bool = True
    programs: Programs = Programs()
    patience: Patience = Patience()
    secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    @cached_property
    def hosts(self) -> tuple[HostSpec, ...]:
        address = LOOPBACK if self.local else None
        return tuple(
            HostSpec(
                pool, number, ranks, self._schemes(pool.name), address, self.programs, self.patience,
                secret=hmac.digest(self.secret.encode(), pool.name.encode(), "sha256").hex(),
            )
            for pool in self.pools
            for number, ranks in enumerate(pool.ranks_by_host())
        )  # fmt: skip

    def link(self, one: str, other: str) -> FleetLink:
        """The link of two pools; one that nobody described is a plain one."""
        return self._links.get(frozenset((one, other))) or FleetLink((one, other))

    @property
    def names(self) -> list[str]:
        """Of the pools."""
        return [pool.name for pool in self.pools]

    def links_with(self, one: str, other: str, streams: int) -> tuple[FleetLink, ...]:
        """All links, that of these two pools with so many streams."""
        links = {frozenset(pair): self.link(*pair) for pair in combinations(self.names, 2)}
        links[frozenset((one, other))] = replace(self.link(one, other), streams=streams)
        return tuple(links.values())

    def routes(self) -> dict[str, str]:
        """Which host serves which rank."""
        return {str(rank): host.id for host in self.hosts for rank in host.ranks}

    @cached_property
    def _links(self) -> dict[frozenset[str], FleetLink]:
        return {frozenset(link.between): link for link in self.links}

    def _schemes(self, pool: str) -> tuple[str, ...]:
        links = [self.link(pool, other.name) for other in self.pools]
        return tuple(sorted({str(link.way(one_machine=one)["scheme"]) for link in links for one in (True, False)}))


def describe(host: HostSpec) -> dict[str, Any]:
    """A host for the journal."""
    return {"host": host.id, "family": host.pool.family, "chip": host.pool.chip, "ranks": len(host.ranks)}
