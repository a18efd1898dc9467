"""Which chips of a node an agent may use.

Ray hands out the accelerators that it knows, and says which. Those of other families it merely counts; their numbers
agents on one node settle among themselves, by names that the kernel frees when their owner is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

from backends.registry import visible_device_variables
from hetero.cluster.errors import ClusterError
from hetero.cluster.fleet import HostSpec

MOST_CHIPS = 1024


class Devices:
    """The chips of one agent, which are its own until it ends."""

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []

    def of(self, spec: HostSpec) -> tuple[str, ...] | None:
        """The host's chips as its family's variables name them, None where there is nothing to choose.

        Raises ClusterError if others hold too many."""
        variables = visible_device_variables(spec.pool.family)
        if spec.assigned is None or spec.pool.emulated or not variables:
            return None
        for resource in spec.pool.resources:
            if spec.assigned.get(resource):
                return spec.assigned[resource]
        return self._claimed(spec, _visible(variables))

    def _claimed(self, spec: HostSpec, visible: Sequence[str] | None) -> tuple[str, ...]:
        chosen: list[str] = []
        for device in visible or map(str, range(MOST_CHIPS)):
            if len(chosen) < len(spec.ranks) and self._claim(spec.pool.family, device):
                chosen.append(device)
        if len(chosen) < len(spec.ranks):
            rule = f"host {spec.id} needs {len(spec.ranks)} chips, and {len(chosen)} of those it may see are free"
            remedy = "wait for other runs on this node, or count its chips right when its Ray is started"
            raise ClusterError(f"pools.{spec.pool.name}.count", spec.pool.count, rule, remedy)
        return tuple(chosen)

    def _claim(self, family: str, device: str) -> bool:
        """Whether the chip is ours: an abstract socket's name has one owner, and needs no file."""
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0hetero-chip-{family}-{device}")
        except OSError:
            name.close()
            return False
        self._claims.append(name)
        return True

    def release(self) -> None:
        for name in self._claims:
            name.close()
        self._claims.clear()


def _visible(variables: Sequence[str]) -> list[str] | None:
    """The chips to which the node's own environment is limited already."""
    for value in _values(variables):
        return [device.strip() for device in value.split(",")]
    return None


def _values(variables: Sequence[str]) -> Iterator[str]:
    return (os.environ[variable] for variable in variables if os.environ.get(variable))
