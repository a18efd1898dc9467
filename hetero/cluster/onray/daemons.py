"""Ray's processes that a Ray of our own goes without: each listens, holds memory, and takes a run part of its start."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from ray import _raylet
from ray._private import services
from ray._private import utils as ray_utils
from ray._private.node import Node

_NEEDLESS = (
    (Node, "start_api_server"),
    (Node, "start_monitor"),
    (ray_utils, "get_dashboard_dependency_error"),  # imports all that the agent may need, to see whether it is there
)
_AGENT = "--dashboard_agent_command="
_NOBODY = "sleep infinity"
"""In the agent's place: the raylet ends when that process does."""
_PORTS = ("METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME", "DASHBOARD_AGENT_LISTEN_PORT_NAME")
_NO_PORT = -1
_WHOSE = ("--session-dir", "--node-id")


@contextlib.contextmanager
def few_daemons() -> Iterator[None]:
    """Ray starts neither its job server, of which `include_dashboard` leaves out but a part, nor what adds hosts, nor
    the agent of both on each host. A Ray that calls one otherwise starts it, that is all."""
    with contextlib.ExitStack() as stack:
        for owner, name in _NEEDLESS:
            if hasattr(owner, name):
                stack.enter_context(mock.patch.object(owner, name, return_value=None))
        if all(hasattr(_raylet, name) for name in ("persist_port", *_PORTS)):
            stack.enter_context(mock.patch.object(services, "start_ray_process", _Starting(services.start_ray_process)))
        yield


class _Starting:
    """Starts a process of Ray's, a raylet without its agent."""

    def __init__(self, start: Any) -> None:
        self._start = start

    def __call__(self, command: Sequence[str], *arguments: Any, **options: Any) -> Any:
        return self._start([_without_agent(part) for part in command], *arguments, **options)


def _without_agent(part: str) -> str:
    """Says that the agent has no ports, for which the raylet waits; where it is not told for whom, it stays."""
    if not part.startswith(_AGENT):
        return part
    persist_port = _raylet.persist_port  # type: ignore[attr-defined]
    told = dict(word.split("=", 1) for word in shlex.split(part.removeprefix(_AGENT)) if "=" in word)
    if not {*_WHOSE} <= told.keys():
        return part
    folder, node = (told[name] for name in _WHOSE)
    for name in _PORTS:
        persist_port(folder, node, getattr(_raylet, name), _NO_PORT)
    return _AGENT + _NOBODY
