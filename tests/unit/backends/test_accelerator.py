"""What accelerators share, on a device module that lives on the CPU and writes down what was asked of it.

It shows the order of streams, events and staging; only `tests/device` shows that a chip agrees.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backends import ascend, cuda, pinned
from backends.accelerator import AcceleratorBackend
from backends.ascend import AscendBackend
from backends.backend import Copy, MemoryUse
from backends.cuda import CudaBackend
from backends.errors import DeviceError
from backends.kunlun import KunlunBackend
from tests.patience import WAIT_S

PLAIN = "all operators are plain torch"


class FakeModule:
    """The part of `torch.cuda` that a backend uses. Copies happen at once; `log` says on which stream."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.config = SimpleNamespace(allow_internal_format=True)
        self.utils = SimpleNamespace(is_support_inf_nan=lambda: True, npu_check_overflow=self.take_overflow)
        self.overflow = False
        self.streams: list[FakeStream] = []
        self.main = FakeStream(self, "main")
        self.free = 60_000

    def take_overflow(self, gradient: float) -> bool:
        """The chip's flag, which is lowered when it was seen."""
        was, self.overflow = self.overflow, False
        return was

    def device_count(self) -> int:
        return 2

    def set_device(self, index: int) -> None:
        self.log.append(f"set_device {index}")

    def Stream(self) -> FakeStream:
        self.streams.append(FakeStream(self, ("out", "in")[len(self.streams) % 2]))
        return self.streams[-1]

    def Event(self, enable_timing: bool = False, blocking: bool = False) -> FakeEvent:
        assert enable_timing != blocking, "one that times is read late, one that is waited for lets its thread sleep"
        return FakeEvent(self, "main")

    def current_stream(self) -> FakeStream:
        return self.main

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        self.log.append(f"enter {stream.name}")
        yield

    def synchronize(self) -> None:
        self.log.append("synchronize device")

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return self.free, 64_000

    def max_memory_allocated(self, index: int) -> int:
        return 777


class FakeStream:
    def __init__(self, module: FakeModule, name: str) -> None:
        self.module, self.name = module, name

    def wait_stream(self, other: FakeStream) -> None:
        self.module.log.append(f"{self.name} waits for {other.name}")

    def record_event(self, event: FakeEvent) -> FakeEvent:
        self.module.log.append(f"event on {self.name}")
        event.stream = self.name
        return event


class FakeEvent:
    def __init__(self, module: FakeModule, stream: str) -> None:
        self.module, self.stream = module, stream
        self.reached = True

    def record(self) -> None:
        self.module.log.append("record")

    def query(self) -> bool:
        return self.reached

    def synchronize(self) -> None:
        self.module.log.append(f"host waits for {self.stream}")

    def elapsed_time(self, later: FakeEvent) -> float:
        return 12.5  # milliseconds


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeModule:
    fake = FakeModule()
    for family in (CudaBackend, AscendBackend, KunlunBackend):
        monkeypatch.setattr(family, "load_module", classmethod(lambda cls: fake))
    monkeypatch.setattr(AcceleratorBackend, "_family_of_process", None)
    monkeypatch.setattr(AcceleratorBackend, "_staging", lambda self, host: torch.empty_like(host))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: fake.log.append(f"kept for {stream.name}"))
    return fake


def opened(backend: AcceleratorBackend, module: FakeModule, index: int = 1) -> AcceleratorBackend:
    backend.open(index)
    module.log.clear()
    return backend


def test_open_selects_the_chip(module: FakeModule) -> None:
    backend = CudaBackend()
    backend.open(1)
    assert "set_device 1" in module.log
    assert str(backend.device) == "cuda:1"
    assert backend.count() == 2
    assert backend.memory() == MemoryUse(777, 60_000, 0)


def test_what_the_driver_had_free_is_usable_and_what_went_since_is_held(module: FakeModule) -> None:
    backend = opened(CudaBackend(), module)
    module.free = 20_000
    assert backend.usable_bytes() == 60_000
    assert backend.memory() == MemoryUse(777, 60_000, 40_000)


def test_open_refuses_a_chip_that_is_not_visible(module: FakeModule) -> None:
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES") as caught:
        CudaBackend().open(2)
    assert (caught.value.key, caught.value.value) == ("index", 2)


def test_one_process_drives_one_family(module: FakeModule) -> None:
    CudaBackend().open(0)
    CudaBackend().open(1)
    with pytest.raises(DeviceError, match="already drives cuda"):
        AscendBackend().open(0)


def test_copy_out_follows_the_work_given_so_far_and_unloads_its_staging(module: FakeModule) -> None:
    backend, host = opened(CudaBackend(), module), torch.zeros(3)
    backend.copy_out(torch.arange(3.0), host).wait()
    assert module.log == ["out waits for main", "enter out", "kept for out", "event on out", "host waits for out"]
    assert host.tolist() == [0, 1, 2]


def test_copy_out_is_over_when_its_event_is_reached(module: FakeModule) -> None:
    backend, host = opened(CudaBackend(), module), torch.zeros(3)
    copy: Any = backend.copy_out(torch.arange(3.0), host)
    copy._event.reached = False
    assert not copy.done()
    assert host.tolist() == [0, 0, 0], "nobody unloads the staging buffer before the chip has filled it"
    copy._event.reached = True
    assert copy.done()
    assert host.tolist() == [0, 1, 2]


def test_a_pinned_slot_is_copied_to_directly(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, host = opened(CudaBackend(), module), torch.zeros(3)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: True)
    monkeypatch.setattr(AcceleratorBackend, "_staging", lambda self, host: pytest.fail("staged"))
    backend.copy_out(torch.arange(3.0), host)
    target = torch.zeros(3)
    backend.copy_in(host, target)
    assert target.tolist() == [0, 1, 2]


def test_copy_in_makes_later_work_wait_for_it(module: FakeModule) -> None:
    backend, tensor = opened(AscendBackend(), module), torch.zeros(3)
    backend.copy_in(torch.arange(3.0), tensor)
    assert module.log == ["in waits for main", "enter in", "kept for in", "main waits for in"]
    assert tensor.tolist() == [0, 1, 2]


def test_a_landing_is_copied_into_beside_the_work_given_so_far(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AcceleratorBackend, "device", torch.device("cpu"))
    backend = opened(CudaBackend(), module)
    tensor = backend.landing((3,), torch.float32)
    assert module.log == ["enter in", "kept for main"]
    backend.copy_in(torch.arange(3.0), tensor, fresh=True)
    assert module.log[2:] == ["enter in", "main waits for in"]
    assert tensor.tolist() == [0, 1, 2]


def test_a_mark_follows_compute(module: FakeModule) -> None:
    opened(CudaBackend(), module).mark().wait()
    assert module.log == ["event on main", "host waits for main"]


def test_a_slot_that_is_staged_is_free_at_once_and_a_pinned_one_when_the_chip_has_read_it(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened(CudaBackend(), module)
    assert backend.copy_in(torch.arange(3.0), torch.zeros(3)).done()
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: True)
    copy: Any = backend.copy_in(torch.arange(3.0), torch.zeros(3))
    copy._event.reached = False
    assert not copy.done()
    assert module.log[-1] == "event on in"


def test_a_thread_that_waits_is_readied_for_the_chip(module: FakeModule) -> None:
    opened(AscendBackend(), module).attend()
    assert module.log == ["set_device 1"]


@pytest.fixture
def kunlun(module: FakeModule, registrations: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """XPUs behind `torch.cuda`, whose runtime pins what it is given."""
    staged: list[torch.Tensor] = []

    def staging(self: AcceleratorBackend, host: torch.Tensor) -> torch.Tensor:
        staged.append(torch.empty_like(host))
        registrations[staged[-1].data_ptr()] = host.nbytes
        return staged[-1]

    monkeypatch.setattr(AcceleratorBackend, "_staging", staging)
    monkeypatch.setattr(AcceleratorBackend, "device", torch.device("cpu"))
    return monkeypatch


def test_kunlun_copies_beside_compute_where_its_runtime_pins(module: FakeModule, kunlun: pytest.MonkeyPatch) -> None:
    backend, host = opened(KunlunBackend(), module), torch.zeros(3)
    assert (backend.capabilities.pinned_async, backend.note()) == (True, "")
    backend.copy_out(torch.arange(3.0), host).wait()
    assert module.log[0] == "out waits for main"
    assert backend.pin(memoryview(bytearray(4096)))
    assert KunlunBackend.examine() == f"copies run beside compute; {PLAIN}"
    assert not KunlunBackend.capabilities.pinned_async, "another chip proves it for itself"


def refuse(*_: object) -> torch.Tensor:
    raise RuntimeError("pin_memory is not supported\nin this build")


def lose(self: AcceleratorBackend, host: torch.Tensor, tensor: torch.Tensor, fresh: bool = False) -> Copy:
    """A chip that reads a cached line of what was copied to it before."""
    if not tensor.any():
        tensor.copy_(host)
    return Copy()


@pytest.mark.parametrize(
    ("name", "fault", "told"),
    [
        ("_staging", refuse, "pin_memory is not supported"),
        ("_staging", lambda self, host: torch.empty_like(host), "torch has no pinned memory"),
        ("copy_in", lose, "a copy by pinned memory differs"),
    ],
)
def test_kunlun_copies_are_blocking_where_they_are_not_proven(
    name: str, fault: Callable[..., Any], told: str, module: FakeModule, kunlun: pytest.MonkeyPatch
) -> None:
    kunlun.setattr(AcceleratorBackend, name, fault)
    backend = opened(KunlunBackend(), module)
    assert not backend.capabilities.pinned_async
    assert backend.note() == f"copies are blocking: {told}"
    assert KunlunBackend.examine() == f"copies are blocking: {told}; {PLAIN}"
    assert not backend.pin(memoryview(bytearray(64)))


def test_kunlun_copies_that_never_end_are_not_waited_for(module: FakeModule, kunlun: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    class Endless(Copy):
        def wait(self) -> None:
            ended.wait(WAIT_S)

    kunlun.setattr(AcceleratorBackend, "copy_in", lambda *_: Endless())
    kunlun.setattr(pinned, "LIMIT_S", 0.05)
    backend = opened(KunlunBackend(), module)
    assert backend.note() == "copies are blocking: copies by pinned memory have not ended within 0.05 s"
    ended.set()


def test_kunlun_copies_without_streams_where_nothing_is_pinned(module: FakeModule) -> None:
    backend, host = opened(KunlunBackend(), module), torch.zeros(3)
    assert backend.copy_out(torch.arange(3.0), host).done()
    backend.copy_in(host, torch.zeros(3))
    assert module.log == []
    assert host.tolist() == [0, 1, 2]


def test_time_is_read_from_events_and_only_then_waited_for(module: FakeModule) -> None:
    stopwatch = opened(CudaBackend(), module).start(expected_s=1000.0)
    stopwatch.stop()
    assert module.log == ["record", "record"]
    assert stopwatch.seconds() == pytest.approx(0.0125)
    assert not stopwatch.overrun


def test_ascend_keeps_tensors_in_plain_formats(module: FakeModule) -> None:
    AscendBackend().open(0)
    assert module.config.allow_internal_format is False


def test_an_ascend_chip_without_infinities_is_asked_for_its_flag(module: FakeModule) -> None:
    module.overflow = True
    assert not opened(AscendBackend(), module).overflowed(), "results show it"
    module.utils.is_support_inf_nan = lambda: False
    backend = opened(AscendBackend(), module)
    assert [backend.overflowed(), backend.overflowed()] == [True, False]


@pytest.fixture
def registrations(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """What `cudaHostRegister` was asked for, by address; it refuses a second time like the real one."""
    registered: dict[int, int] = {}

    def register(address: int, size: int, flags: int) -> int:
        if address in registered:
            return 712  # cudaErrorHostMemoryAlreadyRegistered
        registered[address] = size
        return 0

    unregister: Callable[[int], int | None] = registered.pop
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: self.data_ptr() in registered)
    runtime = SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=unregister)
    monkeypatch.setattr(cuda, "_runtime", lambda: runtime)
    monkeypatch.setattr(CudaBackend, "_drop_last_error", lambda self: module.log.append("error dropped"))
    return registered


def test_pin_registers_the_buffer_once_until_unpinned(module: FakeModule, registrations: dict[int, int]) -> None:
    backend, slot = opened(CudaBackend(), module), memoryview(bytearray(4096))
    assert backend.pin(slot)
    assert list(registrations.values()) == [4096]
    assert not backend.pin(slot)
    assert module.log == ["error dropped"]
    backend.unpin(slot)
    backend.unpin(slot)
    assert registrations == {}


def test_what_torch_does_not_see_as_pinned_is_left_to_staging(
    module: FakeModule, registrations: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copies would be blocking."""
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: False)
    assert not opened(CudaBackend(), module).pin(memoryview(bytearray(64)))
    assert registrations == {}


def test_ascend_pins_by_its_own_runtime_where_the_wheel_has_it(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, slot = opened(AscendBackend(), module), memoryview(bytearray(4096))
    assert not backend.pin(slot), "wheels before 2.7.1 have no npurt"
    asked: dict[int, int] = {}
    module.npurt = lambda: SimpleNamespace(  # type: ignore[attr-defined]
        npuHostRegister=lambda address, size, flags: asked.update({address: flags}) or 0,
        npuHostUnregister=asked.pop,
    )
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: self.data_ptr() in asked)
    assert backend.pin(slot)
    assert list(asked.values()) == [0x10000000]
    backend.unpin(slot)
    assert asked == {}


def test_who_waits_for_an_ascend_chip_sleeps(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([False, False, True])
    monkeypatch.setattr(FakeEvent, "query", lambda self: next(looks))
    slept: list[float] = []
    monkeypatch.setattr(ascend, "time", SimpleNamespace(sleep=slept.append))
    opened(AscendBackend(), module).mark().wait()
    assert len(slept) == 2
    assert "host waits for main" not in module.log, "torch_npu would spin"
