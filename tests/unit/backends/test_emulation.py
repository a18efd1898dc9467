"""An emulated chip takes its modelled time, hides its true speed, and has its chip's memory."""

from __future__ import annotations

import time
from statistics import pstdev

import pytest
from pydantic import ValidationError

from backends import cpu, emulation
from backends.chip import load_chip
from backends.cuda import CudaBackend
from backends.emulation import Emulated, EmulateOptions
from backends.errors import ChipError, OutOfMemory
from backends.options import SpeedEvent
from backends.sizes import GIB


class Clock:
    """Time that passes in sleeps alone, so that no other work on the machine is measured."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (emulation, cpu):
        monkeypatch.setattr(module, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(emulation, "time", clock)
    return clock


def emulated(**options: object) -> Emulated:
    return Emulated(CudaBackend, load_chip("A800-80G"), EmulateOptions.model_validate(options))


def timed(chip: Emulated, clock: Clock, expected_s: float | None, work_s: float = 0.0) -> tuple[float, bool]:
    """Seconds that the stopwatch says, which are those that passed, and whether it overran."""
    began_s = clock.now_s
    stopwatch = chip.start(expected_s)
    clock.sleep(work_s)
    stopwatch.stop()
    assert stopwatch.seconds() == clock.now_s - began_s
    return stopwatch.seconds(), stopwatch.overrun


def modelled(chip: Emulated, actions: int) -> list[float]:
    """The targets of the next actions, without waiting for them."""
    return [chip._slowness() for _ in range(actions)]


@pytest.mark.parametrize("work_s", [0.0, 0.01, 0.029])
def test_an_action_lasts_as_long_as_modelled_whatever_it_computes(work_s: float, clock: Clock) -> None:
    assert timed(emulated(), clock, 0.03, work_s) == (pytest.approx(0.03), False)


def test_a_lap_ends_when_its_part_of_the_action_would(clock: Clock) -> None:
    stopwatch = emulated().start(0.06)
    stopwatch.lap(0.5)
    assert clock.now_s == pytest.approx(100.03)
    stopwatch.lap(0.25)  # past already
    assert clock.now_s == pytest.approx(100.03)
    stopwatch.stop()
    assert stopwatch.seconds() == pytest.approx(0.06)


def test_what_a_chip_waits_for_in_mid_action_is_no_part_of_it(clock: Clock) -> None:
    stopwatch = emulated().start(0.06)
    with stopwatch.paused(0.5):  # the rank comes there at once, its chip in 0.03 s
        clock.sleep(7.0)
    stopwatch.lap(0.75)
    assert clock.now_s == pytest.approx(107.015)
    stopwatch.stop()
    assert (stopwatch.seconds(), stopwatch.overrun) == (pytest.approx(0.06), False)


def test_a_wait_before_the_chip_is_through_is_none_of_its_own(clock: Clock) -> None:
    chip = emulated()
    stopwatch = chip.start(0.06)
    with stopwatch.paused(0.5):
        early, late = chip.start(), chip.start()
        clock.sleep(0.02)
        early.stop()
        clock.sleep(0.03)
        late.stop()
    stopwatch.stop()
    assert (early.seconds(), late.seconds()) == (0.0, pytest.approx(0.02))
    assert clock.now_s == pytest.approx(100.08)


def test_what_a_rank_does_between_actions_is_no_time_of_its_chip(clock: Clock) -> None:
    chip = emulated()
    first = chip.start(0.03)
    first.stop()
    clock.sleep(0.002)  # packs a message, looks whether another is there
    look = chip.start()
    clock.sleep(0.0001)
    look.stop()
    second = chip.start(0.03, first)
    clock.sleep(0.029)
    second.stop()
    assert (clock.now_s, second.seconds(), second.overrun) == (pytest.approx(100.0611), pytest.approx(0.0311), False)
    third = chip.start(0.03, second)
    third.stop()
    assert clock.now_s == pytest.approx(100.0911)


def test_after_a_wait_a_chip_begins_at_its_end(clock: Clock) -> None:
    chip = emulated()
    first = chip.start(0.03)
    first.stop()
    wait = chip.start()
    clock.sleep(0.01)
    wait.stop()
    clock.sleep(0.002)
    second = chip.start(0.03, first)
    second.stop()
    assert (clock.now_s, wait.seconds(), second.seconds()) == (
        pytest.approx(100.07),
        pytest.approx(0.01),
        pytest.approx(0.03),
    )


def test_pacing_never_shortens_and_marks_what_took_too_long(clock: Clock) -> None:
    assert timed(emulated(), clock, 0.005, work_s=0.02) == (pytest.approx(0.02), True)


def test_without_an_expectation_nothing_is_paced(clock: Clock) -> None:
    assert timed(emulated(), clock, None, work_s=0.001) == (pytest.approx(0.001), False)


def test_the_hidden_speed_stretches_time(clock: Clock) -> None:
    assert timed(emulated(speed=0.5), clock, 0.01) == (pytest.approx(0.02), False)


def test_the_clock_is_the_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    began_s, stopwatch = time.perf_counter(), emulated().start(0.03)
    stopwatch.stop()
    assert pytest.approx(0.03) == stopwatch.seconds() <= time.perf_counter() - began_s


def test_events_change_the_speed_from_their_step_on() -> None:
    chip = emulated(speed=0.8, events=[{"at_step": 20, "speed": 0.4}, {"at_step": 10, "speed": 0.5}])
    slowness = []
    for step in (0, 9, 10, 19, 20, 99):
        chip.step(step)
        slowness += modelled(chip, 1)
    assert slowness == pytest.approx([1.25, 1.25, 2.0, 2.0, 2.5, 2.5])


def test_jitter_is_each_chips_own_and_repeats_with_the_seed() -> None:
    def draws(seed: int, index: int) -> list[float]:
        chip = emulated(jitter=0.02, seed=seed)
        chip.open(index)
        return modelled(chip, 500)

    assert draws(5, 0) == draws(5, 0)
    assert draws(5, 0) != draws(5, 1)
    assert draws(5, 0) != draws(6, 0)
    assert pstdev(draws(5, 0)) == pytest.approx(0.02, rel=0.2)


def test_memory_runs_out_where_the_chips_would() -> None:
    chip = emulated(memory_gib=2)
    chip.claim("weights", GIB)
    with pytest.raises(OutOfMemory) as caught:
        chip.claim("pipeline 0 stage 1 activations", 3 * GIB // 2)
    text = str(caught.value)
    assert all(
        part in text for part in ("stage 1", "1.50 GiB", "1.00 GiB in use", "A800-80G has 2.00 GiB", "Save 512.0 MiB")
    )
    assert chip.memory().peak_bytes == GIB


def test_claims_are_replaced_and_released() -> None:
    chip = emulated()
    chip.claim("activations", 60 * GIB)
    chip.claim("activations", 70 * GIB)
    chip.release("activations")
    chip.release("activations")
    chip.claim("weights", 75 * GIB)
    assert chip.memory().peak_bytes == 75 * GIB


def test_it_offers_its_data_sheet_less_the_reserve_unless_it_is_told_otherwise() -> None:
    chip = emulated()
    assert chip.chip.reserve_bytes > GIB
    assert chip.memory().limit_bytes == chip.usable_bytes() == 80 * GIB - chip.chip.reserve_bytes
    assert emulated(memory_gib=70).usable_bytes() == 70 * GIB


def test_it_has_the_familys_limits_and_the_cpus_collectives() -> None:
    chip = emulated()
    assert (chip.family, chip.device_type, chip.collective) == ("cuda", "cpu", "gloo")
    assert chip.shares_group
    assert not CudaBackend.shares_group
    assert chip.capabilities.bfloat16


def test_a_chip_of_another_family_is_refused() -> None:
    with pytest.raises(ChipError, match="family ascend, not cuda"):
        Emulated(CudaBackend, load_chip("Ascend-910B2"), EmulateOptions())


@pytest.mark.parametrize("wrong", [{"speed": 0}, {"jitter": -0.1}, {"memory_gib": 0}, {"spede": 1}, {"events": [{}]}])
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EmulateOptions.model_validate(wrong)


def test_options_are_values() -> None:
    assert EmulateOptions(events=(SpeedEvent(at_step=2, speed=0.5),)).speed_at(2) == 0.5
    assert EmulateOptions().speed_at(7) == 1.0
