"""Which data sheet a chip is of, by what the chip says of itself. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

from backends.chip import ChipSpec, chip_names, load_chip
from backends.errors import ChipError

AUTO = "auto"
"""In place of a chip's name, where the chip is to say it."""


def sheets_of(family: str) -> tuple[ChipSpec, ...]:
    """Of the catalogue, in order of their names."""
    return tuple(chip for chip in map(load_chip, chip_names()) if chip.family == family)


def only_chip(family: str) -> str | None:
    """The chip of a family that has no other."""
    sheets = sheets_of(family)
    return sheets[0].name if len(sheets) == 1 else None


def identify(family: str, device_names: Iterable[str]) -> str:
    """The chip that has all these names of devices; ChipError says what they are where no sheet, or several, have."""
    names = list(dict.fromkeys(device_names))
    found = {name: _sheet_called(family, name) for name in names}
    unknown = [name for name, chip in found.items() if chip is None]
    chips = sorted({chip for chip in found.values() if chip})
    if names and not unknown and len(chips) == 1:
        return chips[0]
    told = ", ".join(map(repr, names)) or "nothing"
    remedy = f"Name the pool's chip: {', '.join(sheet.name for sheet in sheets_of(family)) or 'none has a data sheet'}."
    if len(chips) > 1 and not unknown:
        rule = f"a pool is of equal chips, and these are {' and '.join(chips)}"
        raise ChipError("chip", told, rule, f"Let the pool see chips of one kind alone. {remedy}")
    raise ChipError("chip", told, f"no data sheet of family {family} bears the name that the chips give", remedy)


def _sheet_called(family: str, device_name: str) -> str | None:
    wanted = device_name.strip().casefold()
    called = (sheet for sheet in sheets_of(family) if wanted in map(str.casefold, sheet.device_names))
    return next((sheet.name for sheet in called), None)
