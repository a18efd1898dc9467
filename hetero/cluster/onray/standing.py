"""Hosts that stand ready for what is no run: to be measured, and asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hetero.cluster.fleet import FleetSpec
from hetero.cluster.onray.actors import ray_agents
from hetero.cluster.onray.runtime import ray_runtime
from hetero.cluster.onray.shared_files import Needs
from hetero.cluster.session import Session
from hetero.interrupts import held, listening


@contextmanager
def standing(fleet: FleetSpec, address: str | None) -> Iterator[Session]:
    """On a Ray of its own, or on the cluster at `address`. Every process has ended afterwards."""
    with listening(), held(), ExitStack() as stack:
        stack.enter_context(ray_runtime(address))
        agents = stack.enter_context(ray_agents(fleet, Needs(), lambda notice: None))
        yield stack.enter_context(Session.start(fleet, agents))
