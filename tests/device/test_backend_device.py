"""What only a real chip can show. Skips say what is missing; `tests/contract/test_backends.py` and
`test_operators.py` run there too."""

from __future__ import annotations

import mmap
import os
import socket

import pytest
import torch
import torch.distributed as dist

from backends.accelerator import AcceleratorBackend
from backends.errors import DeviceError
from backends.probe import detect
from backends.registry import family_names, load_backend
from hetero.layers.initial import fill_normal, host_makes

SIZE = 4096


@pytest.fixture(scope="module", params=[name for name in family_names() if name != "cpu"])
def chip(request: pytest.FixtureRequest) -> AcceleratorBackend:
    backend = load_backend(request.param)()
    if not isinstance(backend, AcceleratorBackend):
        pytest.skip(f"{request.param} is no accelerator of torch")
    try:
        backend.open(0)
    except DeviceError as absent:
        pytest.skip(str(absent))
    return backend


def matmul_s(chip: AcceleratorBackend, dtype: torch.dtype, repeats: int = 20) -> float:
    """Seconds of one SIZE x SIZE product, by the chip's own stopwatch."""
    a = torch.randn(SIZE, SIZE, device=chip.device, dtype=dtype)
    b = torch.randn(SIZE, SIZE, device=chip.device, dtype=dtype)
    for _ in range(3):
        a @ b
    stopwatch = chip.start()
    for _ in range(repeats):
        a @ b
    stopwatch.stop()
    return stopwatch.seconds() / repeats


def test_the_host_is_detected_as_this_family(chip: AcceleratorBackend) -> None:
    first = next(finding for finding in detect() if finding.chips)
    assert (first.family, first.chips) == (chip.family, chip.count())


def test_its_stack_brings_the_operators_that_the_family_offers(chip: AcceleratorBackend) -> None:
    """By these names and with these gradients; else the plain ones take their place, which is right but slower."""
    if chip.operators.refused:
        pytest.skip(str(chip.operators))
    assert chip.operators.own.keys() == {offer.operator for offer in chip.offers}


def test_products_agree_with_the_cpu(chip: AcceleratorBackend) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(256, 256), torch.randn(256, 256)
    product = (a.to(chip.device) @ b.to(chip.device)).cpu()
    assert (product - a @ b).norm() / (a @ b).norm() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_initial_values_have_the_hosts_bits(chip: AcceleratorBackend, dtype: torch.dtype) -> None:
    """Otherwise the host makes them, which is right but slow."""
    assert not host_makes(chip.device, dtype)
    shape, region = (300, 20_001), [(1, 300), (3, 20_000)]
    made = [torch.empty((299, 19_997), dtype=dtype, device=device) for device in ("cpu", chip.device)]
    for target in made:
        fill_normal(target, "w", 0, shape, region, 0.02)
    assert torch.equal(made[0], made[1].cpu())


def test_the_stopwatch_measures_a_rate_that_a_chip_can_have(chip: AcceleratorBackend) -> None:
    flops_per_s = 2 * SIZE**3 / matmul_s(chip, torch.float16)
    assert 5e12 < flops_per_s < 2.5e15


def test_a_shared_slot_is_pinned_where_the_family_says_so(chip: AcceleratorBackend) -> None:
    """Kunlun decides by a trial, Ascend by what CANN and driver can do: what is pinned, torch sees as such."""
    fd = os.memfd_create("slot")
    os.ftruncate(fd, 1 << 24)
    with mmap.mmap(fd, 1 << 24) as mapping, memoryview(mapping) as slot:
        pinned = chip.pin(slot)
        assert pinned or chip.family != "cuda"
        host = torch.frombuffer(slot, dtype=torch.float32)
        assert host.is_pinned() == pinned
        tensor = torch.randn(host.shape, device=chip.device)
        chip.copy_out(tensor, host).wait()
        assert torch.equal(host, tensor.cpu())
        del host
        chip.unpin(slot)
    os.close(fd)


def test_a_refused_pin_does_not_poison_later_work(chip: AcceleratorBackend) -> None:
    slot = memoryview(bytearray(1 << 20))
    chip.pin(slot)
    assert not chip.pin(slot)
    assert torch.ones(8, device=chip.device).sum().item() == 8
    chip.unpin(slot)


def test_copies_out_do_not_hold_up_the_host(chip: AcceleratorBackend) -> None:
    if not chip.capabilities.pinned_async:
        pytest.skip(f"{chip.family} copies are blocking by choice")
    a = torch.randn(SIZE, SIZE, device=chip.device)
    host = torch.empty(SIZE, SIZE, pin_memory=True)
    chip.synchronize()
    for _ in range(50):
        a = a @ a / SIZE
    copy = chip.copy_out(a, host)
    assert not copy.done(), "the chip had finished before the host came to ask"
    copy.wait()
    assert torch.equal(host, a.cpu())


def test_copies_into_a_landing_do_not_wait_for_compute(chip: AcceleratorBackend) -> None:
    if not chip.capabilities.pinned_async:
        pytest.skip(f"{chip.family} copies are blocking by choice")
    a = torch.randn(SIZE, SIZE, device=chip.device)
    host = torch.randn(SIZE, 64).pin_memory()
    for _ in range(200):
        a = a @ a / SIZE
    mark = chip.mark()
    landed = chip.landing(host.shape, host.dtype)
    chip.copy_in(host, landed, fresh=True).wait()
    assert not mark.done(), "the chip had finished its products before the copy was over"
    assert torch.equal(landed.cpu(), host)
    assert mark.done(), "work after the copy follows the work before it"


def test_memory_counts_what_is_allocated(chip: AcceleratorBackend) -> None:
    before = chip.memory().peak_bytes
    buffer = torch.empty(before + (1 << 26), dtype=torch.uint8, device=chip.device)
    memory = chip.memory()
    assert buffer.nbytes <= memory.peak_bytes <= memory.limit_bytes


def test_the_collective_works_in_a_world_of_one(chip: AcceleratorBackend) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = dist.TCPStore("127.0.0.1", port, 1, is_master=True)
    dist.init_process_group(f"cpu:gloo,{chip.device_type}:{chip.collective}", store=store, rank=0, world_size=1)
    try:
        for dtype in (torch.float32, torch.float16):
            tensor = torch.full((1024,), 3.0, device=chip.device, dtype=dtype)
            dist.all_reduce(tensor)
            assert tensor.sum().item() == 3 * 1024
    finally:
        dist.destroy_process_group()
