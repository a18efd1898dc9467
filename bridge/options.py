"""The `bridge:` section of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

TransportName = Literal["auto", "zmq", "grpc"]
_DEFAULT_TRANSPORT = "zmq"  # two to three times as fast as grpc, at half the processor time


class LinkOptions(BaseModel):
    """The network between two pools. Rates not given are measured on real chips, unlimited between emulated ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    between: tuple[str, str]
    transport: TransportName = "auto"
    gbit_per_s: float | None = Field(default=None, gt=0)
    rtt_ms: float | None = Field(default=None, ge=0)

    @field_validator("between")
    @classmethod
    def _two_pools(cls, value: tuple[str, str]) -> tuple[str, str]:
        if value[0] == value[1]:
            raise ValueError("a link is between two different pools")
        return value


class BridgeOptions(BaseModel):
    """`transport` holds for every link that names none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transport: TransportName = "auto"
    links: tuple[LinkOptions, ...] = ()

    @field_validator("links")
    @classmethod
    def _each_pair_once(cls, value: tuple[LinkOptions, ...]) -> tuple[LinkOptions, ...]:
        pairs = [frozenset(link.between) for link in value]
        if twice := next((pair for pair in pairs if pairs.count(pair) > 1), None):
            raise ValueError(f"the link between {' and '.join(sorted(twice))} is given twice")
        return value

    def link(self, a: str, b: str) -> LinkOptions:
        """What is said about the link between two pools, in either order; defaults if nothing is."""
        found = (link for link in self.links if set(link.between) == {a, b})
        return next(found, None) or LinkOptions(between=(a, b))

    def transport_between(self, a: str, b: str) -> str:
        """URI scheme of a link: its own, else the section's, else zmq."""
        named = (self.link(a, b).transport, self.transport)
        return next((name for name in named if name != "auto"), _DEFAULT_TRANSPORT)
