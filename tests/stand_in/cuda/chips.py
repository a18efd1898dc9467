"""`torch.cuda` of a build without CUDA, over the host's CPU, with streams as late as they may be.

What is copied on a stream beside the main one happens when somebody waits for it, and not before: whoever reads too
early finds what was there, and whoever frees or writes too early spoils what is read. Memory is pinned if it was asked
for as such, or registered. The main stream computes at once.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from backends.watching import Watching

_ALREADY_REGISTERED, _NOT_REGISTERED = 712, 713
_GIB = 1 << 30
_local = threading.local()
_pinned: dict[int, int] = {}  # bytes by address
_visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",") if name]


class Stream:
    def __init__(self) -> None:
        self._work: deque[Callable[[], object]] = deque()
        self._lock = threading.RLock()
        self.asked = self.done = 0

    def ask(self, work: Callable[[], object]) -> None:
        with self._lock:
            self._work.append(work)
            self.asked += 1

    def do(self, until: int) -> None:
        with self._lock:
            while self.done < until:
                self._work.popleft()()
                self.done += 1

    def wait_stream(self, other: Stream) -> None:
        """The main stream has nothing that waits, and what is asked of it comes after."""
        if self is MAIN:
            other.do(other.asked)
        elif other is not MAIN:
            self.ask(lambda until=other.asked: other.do(until))

    def record_event(self, event: Event) -> Event:
        event.stream, event.until = self, self.asked
        return event


MAIN = Stream()


class Event:
    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        self._asked = False
        self.stream, self.until, self.when = MAIN, 0, 0.0

    def record(self) -> None:
        current_stream().record_event(self)
        self.when = time.perf_counter()

    def query(self) -> bool:
        """No, when it is asked first."""
        first, self._asked = not self._asked, True
        if not first:
            self.synchronize()
        return not first

    def synchronize(self) -> None:
        self._asked = True
        self.stream.do(self.until)

    def elapsed_time(self, later: Event) -> float:
        return (later.when - self.when) * 1e3


class _Copies(Watching):
    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.copy_.default:
            return func(*args, **(kwargs or {}))
        assert _is_pinned(args[0]) or _is_pinned(args[1]), "a copy from or to plain memory does not run beside compute"
        self._stream.ask(lambda: func(*args))
        return args[0]


def current_stream() -> Stream:
    return getattr(_local, "stream", MAIN)


@contextlib.contextmanager
def stream(chosen: Stream) -> Iterator[None]:
    before, _local.stream = current_stream(), chosen
    with _Copies(chosen):
        yield
    _local.stream = before


def _set_device(index: int) -> None:
    assert 0 <= index < len(_visible)


def _register(address: int, size: int, flags: int) -> int:
    if address in _pinned:
        return _ALREADY_REGISTERED
    _pinned[address] = size
    return 0


def _unregister(address: int) -> int:
    return 0 if _pinned.pop(address, None) else _NOT_REGISTERED


def _is_pinned(tensor: torch.Tensor) -> bool:
    address = tensor.data_ptr()
    return any(begin <= address < begin + size for begin, size in list(_pinned.items()))


_plain_empty = torch.empty


def _empty(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
    tensor = _plain_empty(*shape, **options)
    if pin_memory and tensor.nbytes:
        storage = tensor.untyped_storage()
        _pinned[tensor.data_ptr()] = storage.nbytes()
        weakref.finalize(storage, _pinned.pop, tensor.data_ptr(), None)
    return tensor


def _record_stream(tensor: torch.Tensor, of: Stream) -> None:
    assert isinstance(of, Stream)


def install_torch(module: ModuleType) -> None:
    """Where torch has been imported."""
    here = {
        "is_available": lambda: bool(_visible),
        "device_count": lambda: len(_visible),
        "get_device_name": lambda index: "NVIDIA A800-SXM4-80GB",
        "set_device": _set_device,
        "Stream": Stream,
        "Event": Event,
        "stream": stream,
        "current_stream": current_stream,
        "synchronize": lambda: None,
        "mem_get_info": lambda index: (60 * _GIB, 64 * _GIB),
        "max_memory_allocated": lambda index: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        "cudart": lambda: SimpleNamespace(cudaHostRegister=_register, cudaHostUnregister=_unregister),
    }
    for name, thing in here.items():
        setattr(torch.cuda, name, thing)
    torch.version.cuda = "0.0"
    torch.empty = _empty  # type: ignore[assignment]
    torch.Tensor.is_pinned = _is_pinned  # type: ignore[method-assign,assignment]
    torch.Tensor.record_stream = _record_stream  # type: ignore[method-assign,assignment]


def install_backend(module: ModuleType) -> None:
    """Where `backends.cuda` has been imported: the names of devices and of groups are all that is not CUDA's."""
    cuda = module.CudaBackend
    cuda.device_type, cuda.collective = "cpu", "gloo"
    cuda.device = property(lambda self: torch.device("cpu"))
