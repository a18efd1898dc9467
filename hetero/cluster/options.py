"""`pools.X` of the job file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from backends.identify import AUTO, only_chip
from backends.options import EmulateOptions
from backends.registry import find_family
from hetero.cluster.fleet import FleetLink, FleetSpec, Hosting
from hetero.paths import PathText
from hetero.words.pool import Pool


def _like(pattern: str, rule: str) -> AfterValidator:
    """What is of this form; the rule is for those who wrote something else."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise ValueError(rule)
        return text

    return AfterValidator(check)


VariableName = Annotated[str, _like(r"[^=\0]+", "a variable's name is not empty and has no = in it")]
VariableValue = Annotated[str, _like(r"[^\0]{,30000}", "a variable has at most 30000 characters, none of them null")]
InterfaceName = Annotated[str, _like(r"[^\s/]{1,15}", "an interface's name has 1 to 15 characters, no space or /")]
ResourceName = Annotated[str, _like(r"\S(.*\S)?", "a resource's name is not empty and has no space around it")]
_WORD = r"[A-Za-z0-9._-]+"
_CHOICE = rf" *({_WORD} *)?"
"""Of one form only, else a long list without its bracket would be tried in all of them."""
LabelName = Annotated[str, _like(rf"([A-Za-z0-9.-]+/)?{_WORD}", "a label's name has letters, digits, . _ and - only")]
LabelRule = Annotated[
    str,
    _like(
        rf"!?(({_WORD})?|in\({_CHOICE}(,{_CHOICE})*\))",
        "what a label must be is a word of letters, digits, . _ and -, or in(a, b), or either with ! before it",
    ),
]


class EnvOptions(BaseModel):
    """The interpreter and the variables of a pool's own processes."""

    model_config = ConfigDict(extra="forbid")

    python: PathText | None = Field(
        None, description="interpreter of the pool's processes; `null` is the driver's own path"
    )
    vars: dict[VariableName, VariableValue] = Field(
        default_factory=dict,
        repr=False,
        description="environment variables of the pool's processes; their values are nowhere shown or recorded",
    )
    public: list[VariableName] = Field(
        default_factory=list, description="names of `vars` whose values are no secrets, and may be shown and recorded"
    )

    @model_validator(mode="after")
    def _public_names_are_there(self) -> EnvOptions:
        if unknown := set(self.public) - set(self.vars):
            raise ValueError(f"public names variables of vars, and {sorted(unknown)[0]!r} is none of them")
        return self


class SelectOptions(BaseModel):
    """Which hosts of a cluster may serve a pool, by the labels and resources that their Ray nodes were started with."""

    model_config = ConfigDict(extra="forbid")

    labels: dict[LabelName, LabelRule] = Field(
        default_factory=dict,
        description="what a node's labels must be, by name: a value, `in(a, b)`, or either with `!` before it",
    )
    resources: dict[ResourceName, PositiveFloat] = Field(
        default_factory=dict,
        description="what each chip takes of a node; `{}` is one of its family's own, and nothing for an emulated chip",
    )


class PoolOptions(BaseModel):
    """A set of equal chips on fast links, of one family."""

    model_config = ConfigDict(extra="forbid")

    family: str = Field(description="the chips' family, built in or from an installed package")
    chip: str = Field(
        AUTO,
        description="a datasheet of configs/chips, of that family; `auto` is the family's only one, else what the "
        "chips say of themselves, for which they must be there and not emulated",
    )
    count: PositiveInt = Field(description="chips in the pool, over all its hosts")
    tp: Literal["auto"] | PositiveInt = Field(
        "auto", description="tensor-parallel size of every stage on the pool; binds a plan by hand too"
    )
    precision: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="of the pool's arithmetic; `null` is `train.precision`"
    )
    emulate: EmulateOptions | None = Field(
        None,
        description="needs no chip: the pool runs on the CPU, paced to the chip's speed; `{}` is the datasheet's chip",
    )
    chips_per_host: PositiveInt | None = Field(
        None, description="chips on one host, which a tensor-parallel group never leaves; `null` is all of them"
    )
    network_gbit_per_s: PositiveFloat | None = Field(
        None,
        description="what one host carries to all other pools together, each way, in Gbit/s; `null` is what the "
        "fastest of its links does",
    )
    fabric_gbit_per_s: PositiveFloat | None = Field(
        None,
        description="one chip's share of what carries bytes to the pool's other hosts, each way, in Gbit/s; `null` is "
        "as fast as inside a host",
    )
    select: SelectOptions = Field(
        default_factory=SelectOptions, description="which hosts of a cluster may serve the pool"
    )
    env: EnvOptions = Field(default_factory=EnvOptions)
    interface: InterfaceName | None = Field(None, description="network interface of the pool's own collectives")

    @model_validator(mode="after")
    def _a_family_s_only_chip_needs_no_name(self) -> PoolOptions:
        if self.chip == AUTO and self.emulate is None:
            self.chip = only_chip(self.family) or AUTO
        return self


def fleet_of(pools: Mapping[str, PoolOptions], links: Sequence[FleetLink] = (), *, local: bool = True) -> FleetSpec:
    """The fleet that a job's pools and links describe."""
    hosting = {name: _hosting(pool) for name, pool in pools.items()}
    return FleetSpec(tuple(named_pools(pools).values()), tuple(links), local, hosting)


def named_pools(pools: Mapping[str, PoolOptions]) -> dict[str, Pool]:
    """What the job file says of its pools, for all who need no more than what they are."""
    return {
        name: Pool(name, pool.family, pool.chip, pool.count, pool.chips_per_host or 0, pool.emulate)
        for name, pool in pools.items()
    }


def _hosting(pool: PoolOptions) -> Hosting:
    return Hosting(
        python=pool.env.python,
        variables=pool.env.vars,
        interface=pool.interface,
        labels=pool.select.labels,
        resources=_chip_resources(pool),
    )


def _chip_resources(pool: PoolOptions) -> dict[str, float]:
    """What one chip takes of a node's resources."""
    if pool.select.resources or pool.emulate is not None:
        return dict(pool.select.resources)
    name = find_family(pool.family).resource
    return {name: 1.0} if name else {}
