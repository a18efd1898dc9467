"""How a run learns that its Ray is gone: from its own processes' ends, and from a control store that says no more."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import ray

from bridge.system.awake import AwakeClock
from hetero.cluster.control.blame import failure
from hetero.cluster.errors import RayFailure
from hetero.cluster.onray import pulse as pulses
from hetero.cluster.onray.pulse import CONTROL_STORE, EVERY_S, Pulse
from hetero.errors import exit_code
from tests.patience import WAIT_S
from tests.unit.bridge.system.test_awake import Hand


class Store:
    """A control store that can be ended and started anew at the same port."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(1))
        answer = grpc.unary_unary_rpc_method_handler(lambda *_: b"")
        handlers = {"GetClusterId": answer}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", handlers)]
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    store = Store()
    context = SimpleNamespace(gcs_address=f"127.0.0.1:{store.port}")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(pulses.ray._private.worker, "_global_node", SimpleNamespace(dead_processes=list))
    yield store
    store.stop()


def asked(pulse: Pulse, hand: Hand, seconds: float) -> list[Any]:
    """What it tells while so much time passes; each question is answered, or fails, before the next."""
    told: list[Any] = []
    for _ in range(int(seconds / EVERY_S)):
        told += pulse.look()
        if pulse._call is not None:
            pulse._call.exception(WAIT_S)
        hand.at += EVERY_S
    return told


def test_a_control_store_that_is_gone_for_good_is_told(store: Store) -> None:
    hand = Hand()
    pulse = Pulse(30.0, AwakeClock(longest_s=EVERY_S, source=hand))
    assert asked(pulse, hand, 60.0) == []
    store.stop()
    first, *_ = asked(pulse, hand, 60.0)
    assert (first.host, first.process) == ("", CONTROL_STORE)
    assert first.cause.startswith(f"at 127.0.0.1:{store.port} has not answered for 3")
    pulse.close()


@pytest.mark.slow
def test_a_control_store_may_be_started_anew(store: Store) -> None:
    hand = Hand()
    pulse = Pulse(30.0, AwakeClock(longest_s=EVERY_S, source=hand))
    assert asked(pulse, hand, 4.0) == []
    store.stop()
    assert asked(pulse, hand, 20.0) == []
    store.start()
    grpc.channel_ready_future(pulse._channel).result(WAIT_S)
    assert asked(pulse, hand, 60.0) == []
    pulse.close()


def test_one_that_never_answered_is_not_judged(store: Store) -> None:
    store.stop()
    hand = Hand()
    pulse = Pulse(30.0, AwakeClock(longest_s=EVERY_S, source=hand))
    assert asked(pulse, hand, 90.0) == []
    pulse.close()


@pytest.mark.parametrize(
    ("kind", "named"), [("gcs_server", "Ray's control store"), ("raylet", "Ray's raylet"), ("log_monitor", None)]
)
def test_the_end_of_a_vital_process_of_our_own_ray_is_a_failure_of_no_host(
    kind: str, named: str | None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = [(kind, SimpleNamespace(returncode=-9))]
    monkeypatch.setattr(pulses.ray._private.worker, "_global_node", SimpleNamespace(dead_processes=lambda: dead))
    pulse = Pulse()
    told = pulse.look()
    pulse.close()
    assert [one.process for one in told] == ([named] if named else [])
    for one in told:
        error = failure(one, (), 12, "")
        assert isinstance(error, RayFailure)
        assert exit_code(error) == 1
        assert (error.rule, error.value) == (f"{named} was killed by SIGKILL", f"{named}, step 12")
