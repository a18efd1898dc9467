"""Which chips of a node an agent may use.

Ray hands out the accelerators that it knows, and says which. Those of other families it merely counts; their numbers
agents on one node settle among themselves, by names and locks that the kernel frees when their owner is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from backends.probe import device_files
from backends.registry import visible_device_variables
from hetero.cluster.errors import ClusterError
from hetero.cluster.fleet import HostSpec
from hetero.cluster.host.chip_locks import Lock, Name

MOST_CHIPS = 1024


class Devices:
    """The chips of one agent, which are its own until it ends. `notes` say of which of them another user says the same,
    truly or not."""

    def __init__(self) -> None:
        self._locks: list[Lock | Name] = []
        self.notes: list[str] = []

    def of(self, spec: HostSpec) -> tuple[str, ...] | None:
        """The host's chips as its family's variables name them, None where there is nothing to choose.

        Raises ClusterError if others hold too many."""
        variables = visible_device_variables(spec.pool.family)
        if spec.assigned is None or spec.pool.emulated or not variables:
            return None
        for resource in spec.hosting.resources:
            if spec.assigned.get(resource):
                return spec.assigned[resource]
        return self._claimed(spec, _visible(variables))

    def _claimed(self, spec: HostSpec, visible: Sequence[str] | None) -> tuple[str, ...]:
        count = len(spec.ranks)
        chosen, disputed = self._undisputed(spec.pool.family, count, visible)
        for device, other in disputed.items():
            if len(chosen) < count and self._locked(spec.pool.family, device):
                chosen.append(device)
                self.notes.append(f"chip {device} of host {spec.id} is claimed by {other} too, and used all the same")
        if len(chosen) < count:
            rule = f"host {spec.id} needs {count} chips, and {len(chosen)} of those it may see are free"
            remedy = "wait for other runs on this node, or count its chips right when its Ray is started"
            raise ClusterError(f"pools.{spec.pool.name}.count", spec.pool.count, rule, remedy)
        return tuple(chosen)

    def _undisputed(self, family: str, count: int, visible: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
        """So many chips that nobody else claims, if there are; and those on the way that another user claims."""
        chosen: list[str] = []
        disputed: dict[str, str] = {}
        for device in visible or map(str, range(device_files(family) or MOST_CHIPS)):
            if len(chosen) == count:
                break
            name = Name(family, device)
            if name.is_ours and self._locked(family, device):
                chosen.append(device)
                self._locks.append(name)
            else:
                name.close()
                disputed |= {device: name.other} if name.other else {}
        return chosen, disputed

    def _locked(self, family: str, device: str) -> bool:
        lock = Lock(family, device)
        if lock.is_ours:
            self._locks.append(lock)
        return lock.is_ours

    def release(self) -> None:
        for lock in self._locks:
            lock.close()
        self._locks.clear()


def _visible(variables: Sequence[str]) -> list[str] | None:
    """The chips to which the node's own environment is limited already."""
    for value in _values(variables):
        return [device.strip() for device in value.split(",")]
    return None


def _values(variables: Sequence[str]) -> Iterator[str]:
    return (os.environ[variable] for variable in variables if os.environ.get(variable))
