"""Law 4 in training: connections between families break again and again, and nobody who trains can tell."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hetero.cluster.control.events import Event, HostReady
from hetero.cluster.host.agent import LocalAgents
from hetero.data.source import Prepared
from tests.contract.faults import Relay
from tests.distributed.cases import Case, find
from tests.distributed.fleet import POOLS, Standing

CUT_EVERY_S = 0.2


class RelayedAgents(LocalAgents):
    """Whoever dials an endpoint of these agents, dials a relay before it."""

    def __init__(self) -> None:
        super().__init__()
        self.relays: list[Relay] = []

    def receive(self, timeout: float) -> list[Event]:
        return [
            self._behind_relays(event) if isinstance(event, HostReady) else event for event in super().receive(timeout)
        ]

    def close(self) -> None:
        super().close()
        for relay in self.relays:
            relay.close()

    @contextmanager
    def cutting(self) -> Iterator[list[int]]:
        """Cuts all streams every now and then; how many each time."""
        done, cuts = threading.Event(), []

        def cut() -> None:
            while not done.wait(CUT_EVERY_S):
                cuts.append(sum(len(relay.streams) for relay in self.relays))
                for relay in self.relays:
                    relay.cut()

        thread = threading.Thread(target=cut)
        thread.start()
        yield cuts
        done.set()
        thread.join()

    def _behind_relays(self, ready: HostReady) -> HostReady:
        here = {scheme: Relay(uri) for scheme, uri in ready.uris.items() if scheme in ("zmq", "grpc")}
        self.relays += here.values()
        return replace(ready, uris={**ready.uris, **{scheme: relay.uri for scheme, relay in here.items()}})


def _long(name: str) -> Case:
    case = find(name)
    return replace(case, job=replace(case.job, train=case.job.train.model_copy(update={"steps": 8})))


@pytest.mark.parametrize("case", [_long("chunks and tp mixed")], ids=lambda case: case.name)
def test_a_run_whose_connections_are_cut_has_the_same_bits(case: Case, text: Prepared, tmp_path: Path) -> None:
    agents = RelayedAgents()
    pools = {name: POOLS[name] for name in sorted(case.plan.pools())}
    with Standing(text, tmp_path, pools).up(agents) as fleet:
        whole = fleet.train(case.job, case.plan)
        with agents.cutting() as cuts:
            run = fleet.train(case.job, case.plan)
    assert sum(cuts) >= len(whole.losses) // 2
    assert run.losses == whole.losses
    assert run.norms == whole.norms
