"""Whether the Ray under a run is still there.

A run trains on without Ray's control store, until Ray's own code ends the driver a minute later, without a word to the
journal. So the driver looks for itself, and sooner. A control store with a memory may be started anew meanwhile.
"""

from __future__ import annotations

from typing import Any

import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel

from bridge.system.awake import AwakeClock
from hetero.cluster.control.events import Severity, Trouble
from hetero.cluster.host.processes import obituary

PATIENCE_S = 30.0
"""Half of what Ray itself has."""
EVERY_S, ANSWER_S = 2.0, 5.0
CONTROL_STORE = "Ray's control store"
VITAL = {"gcs_server": CONTROL_STORE, "raylet": "Ray's raylet"}
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Pulse:
    """Of the Ray that this process is a driver of. Nothing here waits; `look` is to be called often.

    The processes of a Ray of our own are seen to end. A cluster's control store is asked, and is lost once it has
    answered before and has not for `patience_s`."""

    def __init__(self, patience_s: float = PATIENCE_S, clock: AwakeClock | None = None) -> None:
        self._node: Any = ray._private.worker._global_node
        self._address = ray.get_runtime_context().gcs_address
        self._channel = init_grpc_channel(self._address)
        self._question = self._channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId", bytes, bytes)
        self._patience_s, self._clock = patience_s, clock or AwakeClock()
        self._asked_s = -EVERY_S
        self._answered_s: float | None = None
        self._call: Any = None

    def look(self) -> list[Trouble]:
        """What has gone, the cause before what it leads to."""
        dead = [
            Trouble("", VITAL[kind], *obituary(process.returncode))
            for kind, process in self._node.dead_processes()
            if kind in VITAL
        ]
        return dead or self._unanswered()

    def close(self) -> None:
        self._channel.close()

    def _unanswered(self) -> list[Trouble]:
        now = self._clock.now()
        self._ask(now)
        if self._answered_s is None or now - self._answered_s <= self._patience_s:
            return []
        cause = f"at {self._address} has not answered for {now - self._answered_s:.0f} s"
        return [Trouble("", CONTROL_STORE, Severity.DIED, cause)]

    def _ask(self, now: float) -> None:
        if self._call is not None and self._call.done():
            if self._call.code() not in _GONE:
                self._answered_s = now
            self._call = None
        if self._call is None and now - self._asked_s >= EVERY_S:
            self._asked_s, self._call = now, self._question.future(b"", timeout=ANSWER_S)
