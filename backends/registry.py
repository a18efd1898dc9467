"""Which chip families there are and where their backends live. Torch-free: a backend is imported when it is used.

A family from outside is an entry point of the group `hetero.backends`, named as the family and pointing to a
`Family` in a module that does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from backends.errors import FamilyError, did_you_mean

if TYPE_CHECKING:
    from backends.backend import Backend

ENTRY_POINT_GROUP = "hetero.backends"

# A vendor's plug-in for torch that is installed but broken must not stop `import torch`; backends import theirs.
_NO_AUTOLOAD = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}

# A process of the CPU, or of an emulated chip, leaves the chips of its host alone and uses torch as torch made it.
_NO_CHIPS = {
    **dict.fromkeys(("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES", "XPU_VISIBLE_DEVICES"), ""),
    "DISABLE_XPYTORCH": "1",
}


@dataclass(frozen=True)
class Family:
    """One chip family, without its code: `backend` is "module:Class".

    `visible_devices` names the variables that limit which chips a process sees, `environment` what a process of this
    family needs set before it imports torch, `resource` what a cluster's scheduler counts such chips as, `interface`
    the variable that gives the family's collectives their network interface, `forks` whether processes that drive its
    chips may be forked from one that has imported torch, `fused_adamw` whether torch's fused AdamW has a kernel for
    them: a planner counts what another needs meanwhile.
    """

    name: str
    backend: str
    visible_devices: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    resource: str = ""
    interface: str = ""
    forks: bool = True
    fused_adamw: bool = False


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("cpu", "backends.cpu:CpuBackend", (), _NO_AUTOLOAD | _NO_CHIPS, fused_adamw=True),
        Family(
            "cuda",
            "backends.cuda:CudaBackend",
            ("CUDA_VISIBLE_DEVICES",),
            _NO_AUTOLOAD,
            "GPU",
            "NCCL_SOCKET_IFNAME",
            fused_adamw=True,
        ),
        Family(
            "ascend",
            "backends.ascend:AscendBackend",
            ("ASCEND_RT_VISIBLE_DEVICES",),
            _NO_AUTOLOAD,
            "NPU",
            "HCCL_SOCKET_IFNAME",
            fused_adamw=True,
        ),
        # Its plug-in hooks into torch at interpreter start, not by autoloading, and reads one variable or the other.
        # Importing torch then sets up the chips' runtime, which no fork survives.
        Family(
            "kunlun",
            "backends.kunlun:KunlunBackend",
            ("XPU_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
            {},
            "KUNLUN",
            "BKCL_SOCKET_IFNAME",
            forks=False,
        ),
    )
}


def family_names() -> tuple[str, ...]:
    return tuple(sorted({*FAMILIES, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))}))


def find_family(name: str) -> Family:
    """The family called `name`, built in or from an entry point; `FamilyError` if there is none."""
    if name in FAMILIES:
        return FAMILIES[name]
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            return _load_entry(entry)
    raise FamilyError("family", name, "there is no such chip family", did_you_mean(name, family_names()))


def load_backend(family: str) -> type[Backend]:
    """Import the family's module, and with it torch, and return its backend class. Touches no device."""
    module, _, name = find_family(family).backend.partition(":")
    backend: type[Backend] = getattr(import_module(module), name)
    return backend


def visible_device_variables(family: str) -> tuple[str, ...]:
    """The environment variables that limit which chips a process sees; all are set alike."""
    return find_family(family).visible_devices


def process_environment(family: str, devices: Sequence[int | str] | None = None) -> dict[str, str]:
    """What a process of this family needs in its environment before it imports torch.

    With `devices` it sees only these chips, renumbered from 0. An emulated pool's processes use family "cpu".
    """
    found = find_family(family)
    environment = dict(found.environment)
    if devices is not None:
        environment |= dict.fromkeys(found.visible_devices, ",".join(map(str, devices)))
    return environment


def _load_entry(entry: EntryPoint) -> Family:
    try:
        family: Any = entry.load()
    except Exception as error:
        raise FamilyError(
            "family", entry.name, f"its entry point {entry.value} fails: {error}", "Repair or remove that package."
        ) from error
    if not isinstance(family, Family):
        raise FamilyError(
            "family",
            entry.name,
            f"its entry point {entry.value} is no Family",
            "Point it to a backends.registry.Family.",
        )
    return family
