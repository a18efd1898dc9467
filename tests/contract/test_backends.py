"""One suite for every chip family of the registry, and for each of them emulated.

The CPU and emulated chips run all of it anywhere, real chips where they are; the skip says what is missing.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Iterator
from inspect import getsourcefile, getsourcelines
from pathlib import Path

import pytest
import torch

from backends.backend import Backend
from backends.emulation import Emulated
from backends.errors import DeviceError, OutOfMemory
from backends.registry import FAMILIES, find_family, load_backend, visible_device_variables
from backends.sizes import GIB
from tests.contract.conftest import chips_of
from tests.patience import WAIT_S

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64)


def why_absent(inner: type[Backend]) -> DeviceError | None:
    try:
        inner.count()
    except DeviceError as absent:
        return absent
    return None


@pytest.fixture
def slot() -> Iterator[memoryview]:
    """Shared memory such as a channel owns: a mapped file without a name."""
    fd = os.memfd_create("slot")
    os.ftruncate(fd, 1 << 16)
    with mmap.mmap(fd, 1 << 16) as mapping, memoryview(mapping) as view:
        yield view
    os.close(fd)


# What holds without a device


def test_a_family_declares_itself(family: str) -> None:
    inner = load_backend(family)
    assert inner.family == family
    assert inner.visible_devices == visible_device_variables(family)
    assert inner.capabilities.fused_adamw == find_family(family).fused_adamw
    assert inner.device_type in ("cpu", "cuda", "npu") or family not in FAMILIES
    assert inner.collective
    assert chips_of(family), "a family needs a chip in the catalogue"


def test_a_familys_file_stays_short(family: str) -> None:
    path = getsourcefile(load_backend(family))
    assert path is not None
    assert len(Path(path).read_text().splitlines()) <= 150


def test_no_method_is_long(family: str) -> None:
    methods = [item for item in vars(load_backend(family)).values() if callable(item) and hasattr(item, "__code__")]
    assert max((len(getsourcelines(method)[0]) for method in methods), default=0) <= 80


def test_an_absent_chip_is_an_error_that_teaches(family: str) -> None:
    inner = load_backend(family)
    absence = why_absent(inner)
    if absence is None:
        pytest.skip(f"{family} is here")
    assert (absence.key, absence.value) == ("family", family)
    assert absence.rule
    assert absence.remedy
    with pytest.raises(DeviceError):
        inner().open(0)


# What holds on an open chip


def test_tensors_live_on_its_device(backend: Backend) -> None:
    tensor = torch.ones(3, device=backend.device) + 1
    assert tensor.device.type == backend.device_type
    assert tensor.sum().item() == 6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "plain"])
def test_a_slot_carries_every_bit(backend: Backend, slot: memoryview, dtype: torch.dtype, pinned: bool) -> None:
    if pinned:
        backend.pin(slot)
    values = torch.arange(-50, 50).reshape(4, 25).to(dtype)
    host = torch.frombuffer(slot, dtype=dtype, count=100).view(4, 25)
    back = torch.zeros_like(values, device=backend.device)
    backend.copy_out(values.to(backend.device), host).wait()
    assert torch.equal(host, values)
    backend.copy_in(host, back).wait()
    assert torch.equal(back.cpu(), values)
    backend.unpin(slot)


def test_a_copy_says_when_it_is_over(backend: Backend, slot: memoryview) -> None:
    host = torch.frombuffer(slot, dtype=torch.float32)
    tensor = torch.full(host.shape, 7.0, device=backend.device)
    copy = backend.copy_out(tensor, host)
    copy.wait()
    assert copy.done()
    assert torch.equal(host, tensor.cpu())


def test_another_thread_may_wait_for_copies_which_are_over_in_their_order(backend: Backend, slot: memoryview) -> None:
    host = torch.frombuffer(slot, dtype=torch.float32).view(16, -1)
    tensor = torch.randn(host.shape).to(backend.device)
    copies = [backend.copy_out(*part) for part in zip(tensor, host, strict=True)]
    over: list[bool] = []

    def watch() -> None:
        backend.attend()
        for n, copy in enumerate(copies):
            copy.wait()
            over.append(torch.equal(host[: n + 1], tensor[: n + 1].cpu()))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join(WAIT_S)
    assert over == [True] * len(copies)


def test_what_is_copied_out_may_be_let_go_of(backend: Backend, slot: memoryview) -> None:
    host = torch.frombuffer(slot, dtype=torch.float32)
    copies = []
    for n, part in enumerate(host.split(1 << 10)):
        copies.append(backend.copy_out(torch.full(part.shape, float(n), device=backend.device), part))
        torch.full(part.shape, -1.0, device=backend.device)  # would be given the same memory
    for copy in copies:
        copy.wait()
    assert torch.equal(host, torch.arange(len(copies)).repeat_interleave(1 << 10).float())


def test_a_copy_sees_the_work_before_it_and_is_seen_by_the_work_after_it(backend: Backend, slot: memoryview) -> None:
    host = torch.frombuffer(slot, dtype=torch.float32).view(128, 128)
    tensor = torch.eye(128, device=backend.device)
    for _ in range(20):
        tensor = tensor @ tensor + 0
    backend.copy_out(tensor * 3, host).wait()
    assert torch.equal(host, torch.eye(128) * 3)
    copy = backend.copy_in(host, tensor)
    assert (tensor * 2).trace().item() == 128 * 6
    copy.wait()


def test_a_landing_is_copied_into_and_seen_by_the_work_after_it(backend: Backend, slot: memoryview) -> None:
    backend.pin(slot)
    host = torch.frombuffer(slot, dtype=torch.float32).view(128, 128)
    host.copy_(torch.randn(128, 128))
    for turn in range(1, 4):
        landed = backend.landing((128, 128), torch.float32)
        assert landed.device.type == backend.device_type
        copies = [backend.copy_in(*part, fresh=True) for part in zip(host.split(40), landed.split(40), strict=True)]
        assert torch.equal((landed * 2).cpu(), host * 2)
        for copy in copies:
            copy.wait()
        host.mul_(turn)
        del landed
    del host
    backend.unpin(slot)


def test_a_mark_is_over_when_the_work_before_it_is(backend: Backend) -> None:
    work = torch.ones(64, 64, device=backend.device)
    for _ in range(20):
        work = work @ work / 64
    mark = backend.mark()
    mark.wait()
    assert mark.done()


def test_strided_parts_are_copied(backend: Backend) -> None:
    whole = torch.arange(24.0, device=backend.device).view(4, 6)
    host = torch.zeros(4, 3)
    backend.copy_out(whole[:, ::2], host).wait()
    assert torch.equal(host, whole[:, ::2].cpu())
    backend.copy_in(-host, whole[:, 1::2]).wait()
    assert torch.equal(whole[:, 1::2].cpu(), -host)


def test_copies_leave_autograd_alone(backend: Backend) -> None:
    parameter = torch.ones(3, device=backend.device, requires_grad=True)
    host = torch.zeros(3)
    backend.copy_out(parameter * 2, host).wait()
    assert not host.requires_grad
    backend.copy_in(host, parameter).wait()
    assert parameter.is_leaf
    assert parameter.tolist() == [2, 2, 2]


@pytest.mark.parametrize("host", [torch.zeros(1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.float64)], ids=str)
def test_a_copy_never_broadcasts_or_converts(backend: Backend, host: torch.Tensor) -> None:
    tensor = torch.ones(3, device=backend.device)
    with pytest.raises(ValueError, match="must be equal"):
        backend.copy_in(host, tensor)
    with pytest.raises(ValueError, match="must be equal"):
        backend.copy_out(tensor, host)


def test_time_passes_on_the_stopwatch(backend: Backend) -> None:
    began = time.perf_counter()
    stopwatch = backend.start()
    work = torch.ones(64, 64, device=backend.device)
    for _ in range(20):
        work = work @ work / 64
    stopwatch.stop()
    backend.synchronize()
    passed_s = time.perf_counter() - began
    assert 0 < stopwatch.seconds() <= passed_s
    assert not stopwatch.overrun


def test_only_emulated_chips_are_paced(backend: Backend) -> None:
    stopwatch = backend.start(expected_s=0.05)
    stopwatch.stop()
    assert (stopwatch.seconds() > 0.0499) == isinstance(backend, Emulated)  # what clocks differ by is rounded


def test_memory_has_a_limit_and_a_peak_below_it(backend: Backend) -> None:
    buffer = torch.ones(1 << 16, device=backend.device)
    backend.claim("buffer", buffer.nbytes)
    memory = backend.memory()
    assert buffer.nbytes <= memory.peak_bytes <= memory.limit_bytes
    backend.release("buffer")


def test_only_emulated_chips_count_claims(backend: Backend) -> None:
    too_much = backend.memory().limit_bytes + GIB
    if isinstance(backend, Emulated):
        with pytest.raises(OutOfMemory):
            backend.claim("weights", too_much)
    else:
        backend.claim("weights", too_much)
    backend.release("weights")
