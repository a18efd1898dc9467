from __future__ import annotations

import ctypes
import gc
import mmap
import os
import re

import pytest

from bridge.port.slots import ALIGN_BYTES, SlotRing


def test_both_sides_see_the_same_slots() -> None:
    ours = SlotRing(100, 3)
    theirs = SlotRing.from_fd(os.dup(ours.fd), 100, 3)
    for slot in range(3):
        ours.view(slot)[:] = bytes([slot]) * 100
    assert [bytes(theirs.view(slot)) for slot in range(3)] == [bytes([slot]) * 100 for slot in range(3)]
    assert len(ours.buffer) == 3 * ALIGN_BYTES


@pytest.mark.parametrize("slot_bytes", [1, 100, mmap.PAGESIZE, mmap.PAGESIZE + 1])
def test_no_two_slots_share_a_page(slot_bytes: int) -> None:
    """A driver pins whole pages, and each once."""
    pinned: set[int] = set()
    rings = [SlotRing(slot_bytes, 3) for _ in range(2)]
    for view in (ring.view(slot) for ring in rings for slot in range(3)):
        first = ctypes.addressof(ctypes.c_char.from_buffer(view))
        assert first % mmap.PAGESIZE == 0
        pages = set(range(first // mmap.PAGESIZE, (first + slot_bytes - 1) // mmap.PAGESIZE + 1))
        assert not pages & pinned
        pinned |= pages


def test_slots_do_not_exist_beyond_their_number() -> None:
    ring = SlotRing(8, 2)
    for slot in (-1, 2):
        with pytest.raises(IndexError):
            ring.view(slot)


def test_slots_may_be_empty() -> None:
    assert len(SlotRing(0, 1).view(0)) == 0


def test_they_have_no_name_and_cannot_be_cut() -> None:
    before = set(os.listdir("/dev/shm"))
    ring = SlotRing(4096, 2)
    assert os.readlink(f"/proc/self/fd/{ring.fd}").startswith("/memfd:hetero-slots")
    assert set(os.listdir("/dev/shm")) <= before
    with pytest.raises(PermissionError):
        os.ftruncate(ring.fd, 0)


def test_a_file_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="a file of 0 bytes for 3 slots of 100"):
        SlotRing.from_fd(os.memfd_create("small"), 100, 3)


def test_a_view_outlives_closing() -> None:
    ring = SlotRing(8, 1)
    view = ring.view(0)
    ring.close()
    view[:] = b"12345678"
    assert bytes(view) == b"12345678"


HUGE_BYTES = 2 << 20


def huge_kib() -> int:
    """How much of this process's slots is mapped by huge pages."""
    with open("/proc/self/smaps") as smaps:
        mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps.read(), flags=re.MULTILINE)
    slots = [mapping for mapping in mappings if "hetero-slots" in mapping]
    return sum(int(kib) for mapping in slots for kib in re.findall(r"ShmemPmdMapped: +(\d+) kB", mapping))


def test_large_rings_are_fit_for_huge_pages_and_have_them_if_the_kernel_gives_any() -> None:
    before = huge_kib()
    ours = SlotRing(HUGE_BYTES + 64, 2)
    theirs = SlotRing.from_fd(os.dup(ours.fd), HUGE_BYTES + 64, 2)
    assert not any(bytes(theirs.buffer))
    for ring in (ours, theirs):
        assert ctypes.addressof(ctypes.c_char.from_buffer(ring.buffer)) % HUGE_BYTES == 0
    assert huge_kib() - before in (0, 2 * 2 * HUGE_BYTES >> 10)


def test_nothing_stays_mapped() -> None:
    gc.collect()
    with open("/proc/self/maps") as maps:
        before = maps.read().count("hetero-slots")
    ring = SlotRing(HUGE_BYTES, 3)
    ring.close()
    del ring
    with open("/proc/self/maps") as maps:
        assert maps.read().count("hetero-slots") == before
