"""What chips with a CUDA-like device module of torch (`torch.cuda`, `torch.npu`) share: streams, events, memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from backends.backend import Backend, Copy, MemoryUse, Stopwatch, check_alike
from backends.errors import DeviceError
from backends.offers import Offer, choose
from backends.operators import Operators


class AcceleratorBackend(Backend):
    """A chip behind a device module of torch; a family says which module, and what its chips can do.

    Copies run on streams of their own, one for each direction, through pinned memory: the slot itself where it is
    pinned, else a staging buffer from torch's caching host allocator. A family without `pinned_async` copies plainly.
    """

    offers: ClassVar[tuple[Offer, ...]] = ()
    """Operators that the family's stack may have."""

    _family_of_process: ClassVar[str | None] = None

    def __init__(self) -> None:
        self._index = -1
        self._usable_bytes = 0
        self._module: Any = None
        self._outward: Any = None
        self._inward: Any = None
        self._registered: set[int] = set()

    @classmethod
    @abstractmethod
    def load_module(cls) -> Any:
        """Import the family's device module; `DeviceError` says why it cannot be used."""

    @classmethod
    def count(cls) -> int:
        return int(cls.load_module().device_count())

    @classmethod
    def device_names(cls) -> tuple[str, ...]:
        module = cls.load_module()
        return tuple(str(module.get_device_name(index)) for index in range(module.device_count()))

    def open(self, index: int) -> None:
        self._refuse_second_family()
        module = self.load_module()
        AcceleratorBackend._family_of_process = self.family
        count = module.device_count()
        if not 0 <= index < count:
            variables = " and ".join(self.visible_devices)
            raise DeviceError("index", index, f"this process sees {count} {self.family} chips", f"Check {variables}.")
        module.set_device(index)
        self._index, self._module = index, module
        self._outward, self._inward = module.Stream(), module.Stream()
        self._usable_bytes = self._free_bytes()  # with the process's context made, which is no tensor's

    @classmethod
    def examine(cls) -> str:
        """Which operators its stack brings, and why others are plain."""
        chip = cls()
        chip.open(0)
        return str(chip.operators)

    @property
    def device(self) -> torch.device:
        return torch.device(self.device_type, self._index)

    @property
    def operators(self) -> Operators:
        """Of what the family offers, what proves itself on the opened chip."""
        return choose(self.offers, self.device)

    def synchronize(self) -> None:
        self._module.synchronize()

    def memory(self) -> MemoryUse:
        """The most that torch had allocated to tensors, what was free when the chip was opened, and what has gone of
        that since, by whoever's hand."""
        held = max(0, self._usable_bytes - self._free_bytes())
        return MemoryUse(int(self._module.max_memory_allocated(self._index)), self._usable_bytes, held)

    def usable_bytes(self) -> int:
        return self._usable_bytes

    def _free_bytes(self) -> int:
        return int(self._module.mem_get_info(self._index)[0])

    def start(self, expected_s: float | None = None, after: Stopwatch | None = None) -> Stopwatch:
        return EventStopwatch(self._module)

    def copy_out(self, tensor: Tensor, host: Tensor) -> Copy:
        check_alike(tensor, host)
        tensor = tensor.detach()
        if not self.capabilities.pinned_async:
            host.copy_(tensor)
            return Copy()
        pinned = host if host.is_pinned() else self._staging(host)
        self._outward.wait_stream(self._module.current_stream())
        with self._module.stream(self._outward):
            pinned.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._outward)
        return StreamCopy(self._event(self._outward), None if pinned is host else lambda: host.copy_(pinned))

    def copy_in(self, host: Tensor, tensor: Tensor, fresh: bool = False) -> Copy:
        check_alike(host, tensor)
        tensor = tensor.detach()
        if not self.capabilities.pinned_async:
            tensor.copy_(host)
            return Copy()
        pinned = host if host.is_pinned() else self._staging(host).copy_(host)
        if not fresh:
            self._inward.wait_stream(self._module.current_stream())
        with self._module.stream(self._inward):
            tensor.copy_(pinned, non_blocking=True)
        if not fresh:
            tensor.record_stream(self._inward)
        self._module.current_stream().wait_stream(self._inward)
        return StreamCopy(self._event(self._inward)) if pinned is host else Copy()

    def landing(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the stream that copies in, so that no kernel of the compute stream is still at work in it."""
        if not self.capabilities.pinned_async:
            return torch.empty(tuple(shape), dtype=dtype, device=self.device)
        with self._module.stream(self._inward):
            tensor = torch.empty(tuple(shape), dtype=dtype, device=self.device)
        tensor.record_stream(self._module.current_stream())
        return tensor

    def beside(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.empty(tensor.shape, dtype=dtype, pin_memory=self.capabilities.pinned_async)

    def mark(self) -> Copy:
        return StreamCopy(self._event(self._module.current_stream()))

    def attend(self) -> None:
        self._module.set_device(self._index)

    def pin(self, buffer: memoryview) -> bool:
        """Registers the memory with the driver; kept only where torch then sees that it is pinned, since its copies
        from and to any other memory are blocking."""
        host = torch.frombuffer(buffer, dtype=torch.uint8)
        address = host.data_ptr()
        if not self.capabilities.pinned_async or not self._register(address, host.numel()):
            return False
        if not host.is_pinned():
            self._unregister(address)
            return False
        self._registered.add(address)
        return True

    def unpin(self, buffer: memoryview) -> None:
        address = torch.frombuffer(buffer, dtype=torch.uint8).data_ptr()
        if address in self._registered:
            self._registered.remove(address)
            self._unregister(address)

    def pins_staging(self) -> bool:
        """Whether torch's own pinned memory is there, and seen as such."""
        return self._staging(torch.zeros(1)).is_pinned()

    def _register(self, address: int, size: int) -> bool:
        """Asks the family's driver to pin host memory in place; False where it does not."""
        return False

    def _unregister(self, address: int) -> None:
        """Undoes `_register`."""

    def _refuse_second_family(self) -> None:
        taken = AcceleratorBackend._family_of_process
        if taken not in (None, self.family):
            raise DeviceError(
                "family", self.family, f"this process already drives {taken} chips", "Use one process per family."
            )

    def _staging(self, host: Tensor) -> Tensor:
        return torch.empty(host.shape, dtype=host.dtype, pin_memory=True)

    def _event(self, stream: Any) -> Any:
        """Behind what the stream was given so far; whoever waits for it sleeps, and takes no core from compute."""
        return stream.record_event(self._module.Event(blocking=True))


class StreamCopy(Copy):
    """A copy that is over when the stream has passed `event` and `finish` has unloaded the staging buffer."""

    def __init__(self, event: Any, finish: Callable[[], Any] | None = None) -> None:
        self._event = event
        self._finish = finish

    def done(self) -> bool:
        if not self._event.query():
            return False
        self.wait()
        return True

    def wait(self) -> None:
        self._event.synchronize()
        if self._finish is not None:
            self._finish()
            self._finish = None


class EventStopwatch(Stopwatch):
    """Times what the chip does between two events on the current stream; the host waits only in `seconds`."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._first, self._last = self._event(), self._event()
        self._pauses: list[tuple[Any, Any]] = []
        self._first.record()

    @contextmanager
    def paused(self, part: float) -> Iterator[None]:
        began, over = self._event(), self._event()
        began.record()
        yield
        over.record()
        self._pauses.append((began, over))

    def stop(self) -> None:
        self._last.record()

    def seconds(self) -> float:
        self._last.synchronize()
        paused_ms = sum(began.elapsed_time(over) for began, over in self._pauses)
        return float(self._first.elapsed_time(self._last) - paused_ms) / 1e3

    def _event(self) -> Any:
        return self._module.Event(enable_timing=True)
