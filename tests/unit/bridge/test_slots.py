from __future__ import annotations

import os

import pytest

from bridge.slots import ALIGN_BYTES, SlotRing


def test_both_sides_see_the_same_slots() -> None:
    ours = SlotRing(100, 3)
    theirs = SlotRing.from_fd(os.dup(ours.fd), 100, 3)
    for slot in range(3):
        ours.view(slot)[:] = bytes([slot]) * 100
    assert [bytes(theirs.view(slot)) for slot in range(3)] == [bytes([slot]) * 100 for slot in range(3)]
    assert len(ours.buffer) == 3 * 2 * ALIGN_BYTES


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
