"""`ChipSpec`: what is known of one kind of chip, read from the catalogue in `configs/chips/`. Torch-free.

The catalogue holds priors. A planner measures the chips it has and believes the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from backends import core_schema
from backends.errors import ChipError, did_you_mean
from backends.sizes import GIB, MIB

HOST_BYTES_PER_S = 25e9
"""What PCIe 4.0 x16 carries each way, and about what each of eight chips has of the memory of its host."""


@dataclass(frozen=True)
class Provenance:
    """Where a figure comes from and how far to trust it.

    Tier A: the vendor's figure, repeated alike by several projects. B: one or two independent sources.
    C: conflicting, unofficial or guessed; such a figure is `estimated`.
    """

    tier: str
    source: str
    estimated: bool


@dataclass(frozen=True)
class ChipSpec:
    """One kind of chip: what one device, as torch counts devices, can do at best.

    `peak_flops` is dense FLOP/s by precision (a missing precision is one the chip lacks), `memory_bytes` the memory
    as built, of which driver and context keep `reserve_bytes`, `interconnect_bytes_per_s` the links to the other chips
    of its host in one direction, `efficiency` the fraction of the peak that training usually reaches, and
    `matrix_efficiency` the fraction that a large matrix product reaches by itself, None where nobody has published it.
    A communicator of the family's collectives takes `communicator_bytes` of each of its chips,
    `pair_communicator_bytes` where two chips send to each other, and `exchange_peer_bytes` more for each other chip of
    its host that it has all-to-alls with. `host_bytes_per_s` is its link to its host's memory, each way, and its share
    of that memory's own rate.
    `float8`: its torch converts to float8 and back. `device_names` are what its driver calls it. `provenance` is keyed
    by figure ("memory_bytes", "peak_flops.bfloat16").
    """

    name: str
    family: str
    peak_flops: Mapping[str, float] = field(hash=False)
    memory_bytes: int
    memory_bytes_per_s: float
    interconnect_bytes_per_s: float
    efficiency: float
    provenance: Mapping[str, Provenance] = field(hash=False)
    note: str = ""
    reserve_bytes: int = 0
    communicator_bytes: int = 0
    pair_communicator_bytes: int = 0
    exchange_peer_bytes: int = 0
    host_bytes_per_s: float = HOST_BYTES_PER_S
    matrix_efficiency: float | None = None
    float8: bool = False
    device_names: tuple[str, ...] = ()

    @property
    def usable_bytes(self) -> int:
        """What a process may fill. A chip that is there says it itself, and is believed."""
        return self.memory_bytes - self.reserve_bytes

    def flops_per_s(self, precision: str) -> float:
        """FLOP/s that training is expected to reach; `ChipError` if the chip lacks the precision."""
        if precision not in self.peak_flops:
            raise ChipError(
                "precision", precision, f"{self.name} has only {', '.join(self.peak_flops)}", "Choose one of these."
            )
        return self.peak_flops[precision] * self.efficiency

    @property
    def estimated(self) -> tuple[str, ...]:
        """The figures that nobody official vouches for."""
        return tuple(name for name, provenance in self.provenance.items() if provenance.estimated)


def load_chip(name: str) -> ChipSpec:
    """The chip of the catalogue called `name`; `ChipError` if there is none or its sheet is wrong."""
    if name not in _sheets():
        raise ChipError("chip", name, "there is no such chip in the catalogue", did_you_mean(name, _sheets()))
    return _read(name)


def chip_names() -> tuple[str, ...]:
    return tuple(sorted(_sheets()))


def parse_chip(text: str, name: str) -> ChipSpec:
    """The chip that the YAML `text` describes, which must bear `name`; `ChipError` where it breaks the format."""
    try:
        sheet = _Sheet.model_validate(core_schema.load(text))
    except (ValueError, yaml.YAMLError) as error:
        raise ChipError("chip", name, f"its data sheet is malformed: {error}", "Correct the file.") from error
    if sheet.name != name:
        raise ChipError("name", sheet.name, f"the data sheet lies in {name}.yaml", f"Write `name: {name}`.")
    return sheet.spec()


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Stated(_Strict):
    tier: Literal["A", "B", "C"]
    source: str = Field(min_length=1)
    estimated: bool = False

    @model_validator(mode="after")
    def _unofficial_is_estimated(self) -> _Stated:
        if self.tier == "C" and not self.estimated:
            raise ValueError("a figure of tier C must say `estimated: true`")
        return self

    def provenance(self) -> Provenance:
        return Provenance(self.tier, self.source, self.estimated)


class _Figure(_Stated):
    value: float = Field(gt=0)


class _Fact(_Stated):
    value: bool


class _Names(_Stated):
    value: tuple[str, ...] = Field(min_length=1)


class _Sheet(_Strict):
    """One file of the catalogue, in the units that data sheets use; the interconnect counts both directions."""

    name: str
    family: str
    note: str = ""
    peak_tflops: dict[Literal["float32", "bfloat16", "float16"], _Figure]
    memory_gib: _Figure
    reserve_gib: _Figure
    communicator_mib: _Figure | None = None
    pair_communicator_mib: _Figure | None = None
    exchange_peer_mib: _Figure | None = None
    host_gb_per_s: _Figure | None = None
    memory_gb_per_s: _Figure
    interconnect_gb_per_s: _Figure
    efficiency: _Figure
    matrix_efficiency: _Figure | None = None
    float8: _Fact | None = None
    device_names: _Names | None = None

    @model_validator(mode="after")
    def _plausible(self) -> _Sheet:
        if "float32" not in self.peak_tflops:
            raise ValueError("peak_tflops lacks float32, which every chip has")
        for name, fraction in (("efficiency", self.efficiency), ("matrix_efficiency", self.matrix_efficiency)):
            if fraction is not None and fraction.value > 1:
                raise ValueError(f"{name} is a fraction of the peak, so at most 1")
        if self.reserve_gib.value >= self.memory_gib.value:
            raise ValueError("reserve_gib is a part of memory_gib")
        return self

    def spec(self) -> ChipSpec:
        figures: dict[str, _Stated] = {f"peak_flops.{key}": figure for key, figure in self.peak_tflops.items()}
        figures |= {
            "memory_bytes": self.memory_gib,
            "reserve_bytes": self.reserve_gib,
            "memory_bytes_per_s": self.memory_gb_per_s,
            "interconnect_bytes_per_s": self.interconnect_gb_per_s,
            "efficiency": self.efficiency,
        }
        buffers = {
            "communicator_bytes": self.communicator_mib,
            "pair_communicator_bytes": self.pair_communicator_mib,
            "exchange_peer_bytes": self.exchange_peer_mib,
        }
        said = {
            **buffers,
            "host_bytes_per_s": self.host_gb_per_s,
            "matrix_efficiency": self.matrix_efficiency,
            "float8": self.float8,
            "device_names": self.device_names,
        }
        figures |= {key: figure for key, figure in said.items() if figure is not None}
        return ChipSpec(
            name=self.name,
            family=self.family,
            peak_flops={key: figure.value * 1e12 for key, figure in self.peak_tflops.items()},
            memory_bytes=round(self.memory_gib.value * GIB),
            memory_bytes_per_s=self.memory_gb_per_s.value * 1e9,
            interconnect_bytes_per_s=self.interconnect_gb_per_s.value * 1e9 / 2,
            efficiency=self.efficiency.value,
            provenance={name: figure.provenance() for name, figure in figures.items()},
            note=self.note,
            reserve_bytes=round(self.reserve_gib.value * GIB),
            host_bytes_per_s=self.host_gb_per_s.value * 1e9 if self.host_gb_per_s else HOST_BYTES_PER_S,
            matrix_efficiency=self.matrix_efficiency.value if self.matrix_efficiency else None,
            float8=self.float8 is not None and self.float8.value,
            device_names=self.device_names.value if self.device_names else (),
            **{key: round(figure.value * MIB) if figure else 0 for key, figure in buffers.items()},
        )


@cache
def _sheets() -> Mapping[str, Path]:
    """Every data sheet by chip name; other distributions may add theirs to `configs/chips/`."""
    spec = find_spec("configs")
    elsewhere = (spec.submodule_search_locations if spec else None) or ()
    roots = [*map(Path, elsewhere), Path(__file__).parents[1] / "configs"]
    return {path.stem: path for root in roots for path in sorted(root.glob("chips/*.yaml"))}


@cache
def _read(name: str) -> ChipSpec:
    return parse_chip(_sheets()[name].read_text(encoding="utf-8"), name)
