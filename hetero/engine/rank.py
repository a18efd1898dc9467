"""The life of one rank: it opens its chip, joins its pool's world, and trains the epochs that its agent hands it.

Never imports Ray. It talks plain messages with its agent (`hetero/cluster`) and slots with its endpoint (`bridge`).
"""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from backends.backend import Backend
from backends.chip import load_chip
from backends.emulation import Emulated
from backends.registry import load_backend
from backends.watch import Watch
from bridge.errors import PipeClosed
from bridge.pipe import Message, Pipe
from bridge.port import Port
from bridge.rank import RankId
from hetero.engine.calibration import calibrate
from hetero.engine.epoch import Epoch, claim_memory
from hetero.engine.spec import CalibrationSpec, PoolRun, RunSpec
from hetero.engine.stage import place_of
from hetero.engine.state.live import LiveMove, Moved
from hetero.engine.state.origin import begin
from hetero.engine.state.state import State
from hetero.engine.wiring import EpochGroups, tensor_holdings
from hetero.engine.world import World


class Rank:
    """Obeys its agent's messages; between them it trains as far as its lease goes."""

    def __init__(self, rank: RankId, agent: Pipe, port: Port) -> None:
        self._me, self._agent, self._port = rank, agent, port
        self._world: World | None = None
        self._epoch: Epoch | None = None
        self._state: State | None = None
        self._spec: RunSpec | None = None
        self._number = -1
        self._until = 0
        self._stopped = False
        self._orders: dict[str, Callable[[Message], None]] = {
            "open_world": self._open_world,
            "join_world": self._join_world,
            "calibrate": self._calibrate,
            "configure": self._configure,
            "lease": self._lease,
            "stop": self._stop,
        }

    def run(self) -> None:
        """Until told to stop. Raises PipeClosed when the agent is gone."""
        self._agent.send(
            {"report": "ready", "pid": os.getpid(), "python": platform.python_version(), "torch": torch.__version__}
        )
        while not self._stopped:
            message = self._next_message()
            if message is not None:
                self._orders[message["do"]](message)
            else:
                self._train()
        if self._world is not None:
            self._world.close()

    def _next_message(self) -> Message | None:
        """Waits for an order only where there is no step to run. Descriptors are its `fds`."""
        has_work = self._epoch is not None and self._epoch.next_step < self._until
        try:
            message, fds = self._agent.recv(0.0 if has_work else None)
        except TimeoutError:
            return None
        return {**message, "fds": fds} if fds else message

    def _train(self) -> None:
        assert self._epoch is not None
        report = self._epoch.run_step()
        for event in self._epoch.take_events():
            self._agent.send(event)
        done = self._epoch.next_step
        if self._epoch.spec.saves_at(done):
            self._agent.send({"report": "saved", "step": done, "piece": self._epoch.save()})
        self._agent.send(report)

    def _open_world(self, message: Message) -> None:
        """Index 0 of a pool on several hosts: says where to meet. It joins like the others, when all are told."""
        self._world = self._make_world(message["pool"], message["size"])
        self._agent.send({"report": "world", "address": self._world.open(message["host"])})

    def _join_world(self, message: Message) -> None:
        self._world = self._world or self._make_world(message["pool"], message["size"])
        if message["address"]:
            self._world.join(message["address"], message["secret"])
        else:
            self._world.join_here(*message["fds"])
        chip = self._world.backend
        self._agent.send({"report": "joined", "usable_bytes": chip.usable_bytes(), "note": chip.note()})

    def _make_world(self, pool: dict[str, Any], size: int) -> World:
        run = PoolRun.model_validate(pool)
        backend = open_backend(run, self._me.index % (run.chips_per_host or size))
        return World(backend, self._me, size, Watch(self._waits_long))

    def _waits_long(self, wait: dict[str, Any]) -> None:
        """Called by another thread, while this rank's own waits for a chip of its pool."""
        step = self._epoch.next_step if self._epoch is not None else 0
        told = {"report": "event", "kind": "chip_waits", "step": step, "epoch": max(self._number, 0), "data": wait}
        with suppress(PipeClosed):
            self._agent.send(told)

    def _calibrate(self, message: Message) -> None:
        assert self._world is not None
        spec = CalibrationSpec.model_validate(message["spec"])
        self._agent.send({"report": "calibrated", "measurements": calibrate(spec, self._world)})

    def _configure(self, message: Message) -> None:
        """Drops the epoch before and builds the new one, idle where the plan does not use this rank."""
        assert self._world is not None
        spec = RunSpec.model_validate(message["spec"])
        live = self._move(spec) if spec.state == "live" else None
        self._end_epoch()
        tensors = tensor_holdings(spec)
        groups = EpochGroups(spec, self._world, tensors)
        place = place_of(spec.plan, self._me)
        if place is not None:
            claim_memory(spec, place, self._world.backend)
        self._state = live[0] if live else None  # lets go of the old one first
        self._state = self._state or begin(spec, tensors, self._me, self._world.backend)
        if place is not None:
            self._epoch = Epoch(spec, place, self._world, groups, tensors, self._port, self._state)
        self._spec, self._number, self._until = spec, spec.epoch, spec.start
        self._agent.send({
            "report": "configured", "epoch": spec.epoch, "active": place is not None, "path": spec.text.path,
            "fingerprint": self._epoch.fingerprint if self._epoch else None,
            "moved": live[1].told() if live else None,
        })  # fmt: skip

    def _move(self, spec: RunSpec) -> tuple[State, Moved]:
        """The state that is there goes to where the new plan wants it."""
        assert self._world is not None
        assert self._spec is not None
        assert self._state is not None
        self._close_epoch()
        return LiveMove(self._spec, spec, self._me, self._world.backend, self._port).run(self._state)

    def _close_epoch(self) -> None:
        if self._epoch is not None:
            self._epoch.close()
            self._epoch = None
            gc.collect()  # its parts know each other, and hold gradients

    def _end_epoch(self) -> None:
        assert self._world is not None
        self._close_epoch()
        if self._number >= 0:
            self._port.close_epoch(self._number)
            self._world.end_epoch()

    def _lease(self, message: Message) -> None:
        if message["epoch"] == self._number:
            self._until = message["until"]

    def _stop(self, _: Message) -> None:
        self._stopped = True


def open_backend(pool: PoolRun, index: int) -> Backend:
    """The pool's family, or its emulation, opened at a chip that this process sees as `index`."""
    family = load_backend(pool.family)
    backend = family() if pool.emulate is None else Emulated(family, load_chip(pool.chip), pool.emulate)
    backend.open(index)
    return backend


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs."""
    Rank(rank, agent, port).run()
