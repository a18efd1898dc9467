"""Versions of what drives chips: packages of an interpreter, drivers of a host. Torch-free; nothing is started."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.version import Version

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


def ascend_pair_fault() -> str:
    """Why torch_npu must not be imported by this interpreter, which would be aborted by it; empty if nothing says so.

    It is compiled for one release of torch, and for the build without another accelerator.
    """
    found = installed(("torch", "torch-npu"))
    if len(found) < 2:
        return ""
    torch, plugin = (Version(found[name]) for name in ("torch", "torch-npu"))
    if torch.release != plugin.release:
        return f"torch-npu {plugin} goes with torch {Version(plugin.base_version)}, and torch {torch} is installed"
    if cuda := cuda_of_torch():
        return f"torch-npu goes with the CPU build of torch, and that of CUDA {cuda} is installed"
    return ""


def ascend_pair_remedy() -> str:
    release = Version(installed(("torch-npu",)).get("torch-npu", "0")).base_version
    return f"pip install torch=={release} --index-url https://download.pytorch.org/whl/cpu"


def plugin_faults() -> dict[str, tuple[str, str]]:
    """By package, what is wrong with a vendor's plug-in beside this torch, and what helps."""
    fault = ascend_pair_fault()
    return {"torch-npu": (fault, ascend_pair_remedy())} if fault else {}


def cuda_of_torch() -> str | None:
    """The CUDA that the installed torch is built for, read from its file; None for a build without."""
    told = re.search(r"^cuda\b.*=\s*'([\d.]+)'", _version_file(), re.MULTILINE)
    return told[1] if told else None


def build_of_torch() -> str:
    """What the installed torch is built for."""
    cuda = cuda_of_torch()
    return f"cuda {cuda}" if cuda else "cpu"


def _version_file() -> str:
    try:
        return Path(str(distribution("torch").locate_file("torch/version.py"))).read_text()
    except (PackageNotFoundError, OSError):
        return ""


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
