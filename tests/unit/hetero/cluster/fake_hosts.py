"""Answers a controller's instructions as healthy hosts would, without processes: its whole world in a queue."""

from __future__ import annotations

from collections import Counter, deque
from functools import cache
from typing import Any

from bridge.words.endpoint import Introduce, Introduced
from hetero.cluster.control import events as ev
from hetero.cluster.control import instructions as ins
from hetero.cluster.control.controller import Controller
from hetero.cluster.fleet import FleetSpec
from hetero.words.orders import (
    Calibrate,
    Calibrated,
    Configure,
    Configured,
    Hold,
    JoinWorld,
    Lease,
    OpenWorld,
    TimedUnit,
    WorldJoined,
    WorldOpened,
)
from hetero.words.step import HostStep, StepTotals
from tests.unit.hetero.cluster.specs import epoch_spec


def key_of(host: str) -> str:
    """What stands for the public key of its endpoint."""
    return host.encode().hex()


@cache
def step_of(step: int, epoch: int, held: bool = False) -> HostStep:
    """A step in which nothing was done, of any host."""
    totals = StepTotals(0.0, 0, 0.0, 0.0, 1.0, False, 0, 0, held=True) if held else None
    return HostStep(step, epoch, *[0.0] * 9, {}, {}, 0, False, "pool", "pool@0", 1, totals, ())


class FakeHosts:
    """Feeds a controller. `orders` and `heard` count what went out and came in; leased steps are reported by `step`."""

    def __init__(self, fleet: FleetSpec) -> None:
        self.fleet = fleet
        self.controller = Controller(fleet)
        self.orders: Counter[type] = Counter()
        self.heard: Counter[type] = Counter()
        self.leases: dict[str, Lease] = {}
        self.holds: dict[str, Hold] = {}
        self.told: list[ins.Instruction] = []
        self.fingerprints: dict[str, str] = {}
        self.idle: set[str] = set()
        self.usable_bytes: dict[str, int] = {}

    def ask(self, event: ev.Event) -> Any:
        """Asks the controller and plays all hosts until it has nothing more to order; the last answer."""
        queue = deque([event])
        self.told.clear()
        while queue:
            for instruction in self.feed(queue.popleft()):
                if isinstance(instruction, ins.ToHosts):
                    queue += [answer for host in instruction.hosts for answer in self._obey(host, instruction.order)]
        answers = [one for one in self.told if isinstance(one, ins.Done)]
        return answers[-1].value if answers else None

    def feed(self, event: ev.Event) -> list[ins.Instruction]:
        self.heard[type(event)] += 1
        instructions = self.controller.handle(event)
        self.told += instructions
        return instructions

    def start(self, epoch: int = 0, start: int = 0, save_every: int = 0) -> None:
        self.ask(ev.StartAsked())
        self.ask(ev.ConfigureAsked(Configure(epoch_spec(epoch, start, save_every=save_every))))

    def report(self, host: str, step: int, epoch: int = 0, held: bool = False) -> list[ins.Instruction]:
        for one in (instructions := self.feed(ev.StepReported(step_of(step, epoch, held)))):
            if isinstance(one, ins.ToHosts):
                for member in one.hosts:
                    self._obey(member, one.order)
        return instructions

    def _obey(self, host: str, order: ins.HostOrder) -> list[ev.Event]:
        self.orders[type(order)] += 1
        match order:
            case ins.StartHost():
                schemes = ("zmq", "grpc")
                uris = {scheme: f"{scheme}://{host}" for scheme in schemes}
                return [ev.HostReady(host, f"node of {host}", "127.0.0.1", uris, key_of(host))]
            case OpenWorld():
                return [ev.Answered(host, [WorldOpened("127.0.0.1:1")])]
            case JoinWorld():
                return [ev.Answered(host, [WorldJoined(self.usable_bytes.get(host))])]
            case Introduce():
                return [ev.Answered(host, [Introduced()])]
            case Calibrate():
                return [ev.Answered(host, [Calibrated((TimedUnit(host, 1, "attention", 1.0, 1.0),))])]
            case Configure():
                active, text = host not in self.idle, self.fingerprints.get(host)
                return [ev.Answered(host, [Configured(order.spec.epoch, active, "text.bin", text)])]
            case Lease():
                self.leases[host] = order
                return []
            case Hold():
                self.holds[host] = order
                return []
            case ins.StopHost():
                return [ev.HostStopped(host)]
            case _:
                raise TypeError(f"{order!r}")
