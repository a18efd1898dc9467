"""The life of one rank: it opens its chip, joins its pool's world, and trains the epochs that its agent hands it.

Never imports Ray. It talks with its agent (`hetero/cluster`) in `hetero/words`, with its endpoint (`bridge`) by slots.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from traceback import format_exception
from typing import Any

from backends.backend import Backend
from backends.chip import load_chip
from backends.emulation import Emulated
from backends.registry import load_backend
from backends.watch import Watch
from bridge.errors import PipeClosed
from bridge.port.pipe import Pipe
from bridge.port.port import Port
from bridge.rank import RankId
from bridge.words.endpoint import Failed, Stop
from bridge.words.error import ErrorReport
from bridge.words.word import Answer, Word, unexpected
from hetero.engine.calibration import calibrate
from hetero.engine.epoch import Epoch, claim_memory
from hetero.engine.rates import measure_rates
from hetero.engine.state.live import LiveMove
from hetero.engine.state.origin import begin, note_of
from hetero.engine.state.saving import Saver
from hetero.engine.state.state import State
from hetero.engine.step.stage import place_of
from hetero.engine.wiring import EpochGroups, tensor_holdings
from hetero.engine.world import World
from hetero.words.notices import ChipWaits
from hetero.words.orders import (
    Calibrate,
    Calibrated,
    Configure,
    Configured,
    Hold,
    JoinWorld,
    Lease,
    MeasureRates,
    Moved,
    OpenWorld,
    Rated,
    Ready,
    WorldJoined,
    WorldOpened,
)
from hetero.words.pool import Pool
from hetero.words.spec import RunSpec
from hetero.words.step import StepReport


class Rank:
    """Obeys its agent's orders; between them it trains as far as its lease goes."""

    def __init__(self, rank: RankId, agent: Pipe, port: Port) -> None:
        self._me, self._agent, self._port = rank, agent, port
        self._world: World | None = None
        self._epoch: Epoch | None = None
        self._state: State | None = None
        self._saver: Saver | None = None
        self._spec: RunSpec | None = None
        self._number = -1
        self._until = 0
        self._stopped = False

    def run(self) -> None:
        """Until told to stop. Raises PipeClosed when the agent is gone."""
        self._agent.send_word(Ready())
        while not self._stopped:
            if (heard := self._next_word()) is None:
                self._train()
            elif (answer := self._obey(*heard)) is not None:
                self._agent.send_word(answer)
        if self._world is not None:
            self._world.close()

    def _next_word(self) -> tuple[Word, list[int]] | None:
        """With its descriptors. Waits for one only where there is no step to run."""
        try:
            return self._agent.recv_word(0.0)
        except TimeoutError:
            if self._epoch is not None and self._epoch.next_step < self._until:
                return None
        if self._epoch is not None:
            self._epoch.settle()
        return self._agent.recv_word(None)

    def _obey(self, word: Word, fds: list[int]) -> Answer | None:
        match word:
            case OpenWorld():
                return self._open_world(word)
            case JoinWorld():
                return self._join_world(word, fds)
            case Calibrate():
                return self._calibrate(word)
            case MeasureRates():
                return self._rate(word)
            case Configure():
                return self._configure(word)
            case Lease():
                self._lease(word)
            case Hold():
                self._hold(word)
            case Stop():
                self._stopped = True
            case _:
                raise unexpected(word)
        return None

    def _train(self) -> None:
        assert self._epoch is not None
        report = self._step()
        for event in self._epoch.take_events():
            self._agent.send_word(event)
        done = self._epoch.next_step
        if self._epoch.spec.saves_at(done):
            self._epoch.save()
        if self._epoch.held:
            self._until = done
        self._agent.send_word(report)

    def _step(self) -> StepReport:
        """The next one, which nobody has been told of yet."""
        assert self._epoch is not None
        return self._epoch.run_step()

    def _open_world(self, order: OpenWorld) -> WorldOpened:
        """Index 0 of a pool on several hosts: says where to meet. It joins like the others, when all are told."""
        self._world = self._make_world(order.pool)
        return WorldOpened(self._world.open(order.host))

    def _join_world(self, order: JoinWorld, fds: list[int]) -> WorldJoined:
        self._world = self._world or self._make_world(order.pool)
        if order.address:
            self._world.join(order.address, order.secret)
        else:
            self._world.join_here(*fds)
        chip = self._world.backend
        return WorldJoined(chip.usable_bytes(), chip.note())

    def _make_world(self, pool: Pool) -> World:
        backend = open_backend(pool, self._me.index % pool.host_chips)
        return World(backend, self._me, pool.count, Watch(self._waits_long))

    def _waits_long(self, wait: dict[str, Any]) -> None:
        """Called by another thread, while this rank's own waits for a chip of its pool."""
        with suppress(PipeClosed):
            self._agent.send_word(ChipWaits(wait["group"], wait["chip"], tuple(wait["waits_for"]), wait["seconds"]))

    def _save_failed(self, error: Exception) -> None:
        """Called by the thread that saves: this rank may wait for an order meanwhile."""
        with suppress(PipeClosed):
            self._agent.send_word(Failed(ErrorReport.of(error, "".join(format_exception(error)))))

    def _calibrate(self, order: Calibrate) -> Calibrated:
        assert self._world is not None
        return Calibrated(tuple(calibrate(order.spec, self._world)))

    def _rate(self, order: MeasureRates) -> Rated:
        assert self._world is not None
        return Rated(tuple(measure_rates(order.spec, self._world)))

    def _configure(self, order: Configure) -> Configured:
        """Drops the epoch before and builds the new one, idle where the plan does not use this rank."""
        assert self._world is not None
        spec = order.spec
        self._saver = self._saver or Saver(self._me, self._world.backend, self._agent.send_word, self._save_failed)
        self._saver.wait()
        self._state, moved = self._move(spec) if spec.state == "live" else (None, None)
        self._end_epoch()
        tensors = tensor_holdings(spec)
        groups = EpochGroups(spec, self._world, tensors)
        place = place_of(spec.plan, self._me)
        if place is not None:
            claim_memory(spec, place, self._world.backend)
        self._state = self._state or begin(spec, tensors, self._me, self._world.backend)
        if place is not None:
            self._epoch = Epoch(spec, place, self._world, groups, tensors, self._port, self._state, self._saver)
        self._spec, self._number, self._until = spec, spec.epoch, spec.start
        fingerprint = self._epoch.fingerprint if self._epoch else None
        note = note_of(spec, self._me, self._world.backend)
        return Configured(spec.epoch, place is not None, spec.text.path, fingerprint, moved, note)

    def _move(self, spec: RunSpec) -> tuple[State, Moved]:
        """The state that is there goes to where the new plan wants it."""
        assert self._world is not None
        assert self._spec is not None
        assert self._state is not None
        self._close_epoch()
        return LiveMove(self._spec, spec, self._me, self._world.backend, self._port).run(self._state)

    def _close_epoch(self) -> None:
        if self._epoch is not None:
            self._epoch.settle()
            self._epoch.close()
            self._epoch = None
            gc.collect()  # what it held on the chip is in circles of references, and the next epoch needs the room

    def _end_epoch(self) -> None:
        assert self._world is not None
        self._close_epoch()
        if self._number >= 0:
            self._port.close_epoch(self._number)
            self._world.end_epoch()

    def _lease(self, lease: Lease) -> None:
        """One that was on its way when the epoch was held is void."""
        is_held = self._epoch is not None and self._epoch.held
        if lease.epoch == self._number and not is_held:
            self._until = lease.until

    def _hold(self, hold: Hold) -> None:
        if hold.epoch == self._number and self._epoch is not None:
            self._epoch.hold = True


def open_backend(pool: Pool, index: int) -> Backend:
    """The pool's family, or its emulation, opened at a chip that this process sees as `index`."""
    family = load_backend(pool.family)
    backend = family() if pool.emulate is None else Emulated(family, load_chip(pool.chip), pool.emulate)
    backend.open(index)
    return backend


def main(rank: RankId, agent: Pipe, port: Port) -> None:
    """What a forked rank runs."""
    Rank(rank, agent, port).run()
