"""The controller alone, with 1,000 fake hosts of 8 chips: what a step costs the driver.

    python -m benchmarks.controller [--json] [--steps 10000]

Time is CPU time of this process and includes the making of the fake hosts' events, so the controller itself costs less.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

from hetero.cluster.control import events as ev
from hetero.words.orders import Lease
from tests.unit.hetero.cluster.fake_hosts import FakeHosts
from tests.unit.hetero.cluster.fleets import big_fleet


@dataclass(frozen=True)
class Cost:
    """Per step: CPU milliseconds, and messages in both directions."""

    cpu_ms: float
    slowest_cpu_ms: float
    messages: float


def measure(hosts: int, chips_per_host: int, steps: int) -> Cost:
    """Runs `steps` steps of a fleet of two pools under leases."""
    fleet = FakeHosts(big_fleet(hosts, chips_per_host))
    fleet.start()
    fleet.ask(ev.RunAsked(steps))
    names = [host.id for host in fleet.fleet.hosts]
    costs = [_step(fleet, names, step) for step in range(steps)]
    messages = fleet.heard[ev.StepReported] + fleet.orders[Lease]
    return Cost(1000 * sum(costs) / steps, 1000 * max(costs), messages / steps)


def _step(fleet: FakeHosts, names: list[str], step: int) -> float:
    fleet.told.clear()
    began = time.process_time()
    for name in names:
        fleet.report(name, step)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures alone")
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    whole = measure(1000, 8, options.steps)
    half, narrow = measure(500, 8, options.steps // 10), measure(1000, 1, options.steps // 10)
    if not options.json:
        print(f"{'hosts':>6} {'chips':>6} {'CPU ms/step':>12} {'messages/step':>14}")
        for hosts, chips, cost in ((1000, 8000, whole), (500, 4000, half), (1000, 1000, narrow)):
            print(f"{hosts:6} {chips:6} {cost.cpu_ms:12.3f} {cost.messages:14.1f}")
    figures = {
        "hosts": 1000, "chips": 8000, "steps": options.steps,
        "cpu_ms_per_step": whole.cpu_ms, "slowest_step_cpu_ms": whole.slowest_cpu_ms,
        "messages_per_step": whole.messages,
        "messages_per_step_half_the_hosts": half.messages,
        "messages_per_step_an_eighth_of_the_chips": narrow.messages,
    }  # fmt: skip
    print(json.dumps({"benchmark": "controller", "figures": figures, "emulated": False, "void": None}))


if __name__ == "__main__":
    main()
