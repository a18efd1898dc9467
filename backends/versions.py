"""Versions of what drives chips: packages of an interpreter, drivers of a host. Torch-free; nothing is started."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torch-npu", "torch-xmlir", "xpytorch")
"""Torch, and the vendors' plug-ins for it, by the names of their distributions."""

_DRIVERS = {
    "ascend": (Path("/usr/local/Ascend/driver/version.info"), re.compile(r"^Version=(\S+)", re.MULTILINE)),
    "cuda": (Path("/proc/driver/nvidia/version"), re.compile(r"Module\s+(?:for \S+\s+)?(\d[\d.]+)")),
}
"""Which file tells a driver's version, and where in it."""


def interpreter() -> dict[str, str]:
    """This Python, and torch with its plug-ins as far as they are installed in it."""
    return {"python": platform.python_version(), **installed(PACKAGES)}


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """The versions of those packages that this interpreter has."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def driver(family: str) -> str | None:
    """The version of the family's driver on this host; None where no file tells it."""
    if family not in _DRIVERS:
        return None
    path, pattern = _DRIVERS[family]
    try:
        told = pattern.search(path.read_text(errors="replace"))
    except OSError:
        return None
    return told[1] if told else None
