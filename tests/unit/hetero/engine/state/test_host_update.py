"""An optimizer in host memory: the same bits, beside the chip's work, in the order of need."""

from __future__ import annotations

from math import inf
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends.cpu import CpuBackend
from hetero.engine.state import host_update
from hetero.engine.state.host_update import HostPace, HostReturn, HostUpdate
from hetero.engine.state.loss_scale import LossScale
from hetero.engine.state.optimizer import Optimizer
from hetero.engine.state.state import State
from hetero.engine.step.meter import Meter
from hetero.transfer.waits import Waits
from hetero.words.options import LossScaleOptions, OptimizerOptions
from tests.patience import WAIT_S

OPTIONS = OptimizerOptions(lr=0.01, weight_decay=0.1)
UNITS = {"a": 0, "b": 2, "c": 3}
SLICES = [["a"], ["b", "c"]]


def _state(dtype: torch.dtype) -> State:
    values = {name: torch.randn(4, 3, generator=torch.Generator().manual_seed(u)) for name, u in UNITS.items()}
    state = State(0, LossScale.of(LossScaleOptions(), {}), values={n: value.to(dtype) for n, value in values.items()})
    state.make_masters(UNITS)
    return state


def _sums(step: int) -> dict[str, torch.Tensor]:
    return {name: torch.full((4, 3), 0.1 * (unit + step + 1)) for name, unit in UNITS.items()}


def _hosted(state: State, pace: HostPace | None = None, waits: Waits | None = None) -> HostUpdate:
    state.to_host(torch.empty_like)
    optimizer = Optimizer(OPTIONS, state, set(UNITS), fused=True)
    booked = waits or Waits(CpuBackend())
    return HostUpdate(optimizer, state, CpuBackend(), SLICES, UNITS, pace or HostPace(), booked)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_are_those_of_the_chip_and_come_back(dtype: torch.dtype) -> None:
    on_chip, moving = _state(dtype), _state(dtype)
    chip = Optimizer(OPTIONS, on_chip, set(UNITS), fused=True)
    for step in range(3):
        chip.step(_sums(step), 0.5, 0.01)
    host, back = _hosted(moving), list[dict[str, torch.Tensor]]()
    for step in range(3):
        sums = _sums(step)
        host.take({"a": sums["a"]})
        host.take(sums)
        host.leave()
        host.start(0.5, 0.01)
        for names in host.through(inf):
            back.append({name: moving.values[name] for name in names})
    host.close()
    assert [list(values) for values in back] == SLICES * 3
    assert all(value.dtype == dtype for values in back for value in values.values())
    assert moving.masters["a"].data_ptr() != moving.values["a"].data_ptr()
    for name, kinds in on_chip.owned().items():
        assert all(torch.equal(tensor, moving.owned()[name][kind]) for kind, tensor in kinds.items())


@pytest.mark.parametrize("owed", [-1, 0])
def test_a_unit_waits_for_its_own_slice_and_for_no_later_one(owed: int) -> None:
    """Nor does a rank before it waits for others, if the later one is its alone."""
    state, later = _state(torch.float32), Event()
    host = _hosted(state)
    update = host._optimizer._update

    def slow(names: Any, *rest: Any) -> None:
        assert names != SLICES[1] or later.wait(WAIT_S)
        update(names, *rest)

    host._optimizer._update = slow  # type: ignore[method-assign]
    given: list[str] = []
    back: Any = SimpleNamespace(
        reach=lambda unit: unit, wait=lambda unit: given.append(f"wait {unit}"), join=lambda: given.append("join"),
        settle=lambda: given.append("settle"), give=lambda masters, values: given.extend(masters), owed=owed,
    )  # fmt: skip
    arrival = HostReturn(host, back, state)
    host.take(_sums(0))
    host.leave()
    host.start(1.0, 0.01)
    arrival.wait(0)
    arrival.wait(1)
    arrival.join()
    assert given == ["a", "wait 0", "wait 1", "join"], "the second slice is not there yet"
    later.set()
    arrival.settle()
    assert given[4:] == ["b", "c", "settle"]
    host.close()


def test_before_a_rank_waits_for_others_they_have_what_they_wait_for() -> None:
    host, given = _hosted(_state(torch.float32)), list[str]()
    back: Any = SimpleNamespace(
        join=lambda: given.append("join"), give=lambda masters, values: given.extend(masters), owed=2
    )
    host.take(_sums(0))
    host.leave()
    host.start(1.0, 0.01)
    HostReturn(host, back, host._state).join()
    assert given == ["a", "b", "c", "join"]
    host.close()


def test_what_goes_wrong_there_is_raised_where_it_is_waited_for() -> None:
    host = _hosted(_state(torch.float32))
    host._optimizer._update = lambda *_: 1 / 0  # type: ignore[method-assign]
    host.take(_sums(0))
    host.start(1.0, 0.01)
    with pytest.raises(ZeroDivisionError):
        list(host.through(inf))
    host.close()


def test_an_emulated_host_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums leave one after another; a slice is updated, and then comes back while the next one is."""
    now, waited = [100.0], list[float]()

    def sleep_until(when: float) -> None:
        waited.append(when)
        now[0] = max(now[0], when)

    monkeypatch.setattr(host_update, "perf_counter", lambda: now[0])
    monkeypatch.setattr(host_update, "_sleep_until", sleep_until)
    host = _hosted(_state(torch.float32), HostPace(byte_s=1 / 48, parameter_s=2 / 12))
    host.take(_sums(0))
    host.leave()
    assert waited.pop() == pytest.approx(103.0)
    host._run(1.0, 0.01)
    assert waited == pytest.approx([105.0, 109.0])
    assert [host._updated.get(), host._updated.get()] == pytest.approx([106.0, 111.0])
    host.close()


def test_what_the_chip_waits_for_its_host_is_time_of_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands still while sums leave, and for a slice that is not there yet; one that is there costs nothing."""
    now = [100.0]

    class Watch:
        def __init__(self) -> None:
            self._began = self._stopped = now[0]

        def stop(self) -> None:
            self._stopped = now[0]

        def seconds(self) -> float:
            return self._stopped - self._began

    def sleep_until(when: float) -> None:
        now[0] = max(now[0], when)

    monkeypatch.setattr(host_update, "perf_counter", lambda: now[0])
    monkeypatch.setattr(host_update, "_sleep_until", sleep_until)
    clock: Any = SimpleNamespace(start=Watch)
    waits = Waits(clock)
    host = _hosted(_state(torch.float32), HostPace(byte_s=1 / 48, parameter_s=2 / 12), waits)
    host.take(_sums(0))
    host.leave()
    host._left = list(SLICES)
    host._run(1.0, 0.01)
    now[0] = 107.0
    assert list(host.through(0)) == [["a"]], "since 106"
    assert list(host.through(inf)) == [["b", "c"]], "at 111"
    spent = Meter(CpuBackend(), waits).spent(0, 0)
    assert spent.optimizer_s == pytest.approx(3.0 + 4.0)
    assert spent.bubble_s == spent.bridge_wait_s == 0.0
    host.close()
