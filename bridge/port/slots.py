"""A channel's slots: memory that a rank and its endpoint share, and that has a name nowhere."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os

from bridge.system.linux import map_shared, use_huge_pages

ALIGN_BYTES = mmap.PAGESIZE
"""A chip's driver pins whole pages and refuses one that is pinned already: no two slots share one."""

_SEALS = fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW  # no peer may cut the memory from under us


class SlotRing:
    """`slots` slots of `slot_bytes` bytes each, each on pages of its own, in one anonymous memory file.

    The rank creates it and passes `fd` to its endpoint; the kernel frees the memory when both have let go of it, so
    that nothing is left, whoever dies. Whoever holds a view keeps the memory alive.
    """

    def __init__(self, slot_bytes: int, slots: int) -> None:
        fd = os.memfd_create("hetero-slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _stride(slot_bytes) * slots)
        fcntl.fcntl(fd, *_SEALS)
        self._map(fd, slot_bytes, slots)
        use_huge_pages(self.buffer)

    @classmethod
    def from_fd(cls, fd: int, slot_bytes: int, slots: int) -> SlotRing:
        """The same memory in another process. Takes ownership of `fd`, whatever comes of it: ValueError if the file is
        smaller than told or may become so, OSError if it is none that can be mapped."""
        ring = cls.__new__(cls)
        try:
            if os.fstat(fd).st_size < _stride(slot_bytes) * slots:
                raise ValueError(f"a file of {os.fstat(fd).st_size} bytes for {slots} slots of {slot_bytes}")
            if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
                raise ValueError("a file that may shrink")
            ring._map(fd, slot_bytes, slots)
        except (OSError, ValueError):
            os.close(fd)
            raise
        return ring

    def _map(self, fd: int, slot_bytes: int, slots: int) -> None:
        self.fd, self.slot_bytes, self.slots = fd, slot_bytes, slots
        self._stride = _stride(slot_bytes)
        self.buffer = map_shared(fd, self._stride * slots)

    def view(self, slot: int) -> memoryview:
        """Writable memory of one slot, `slot_bytes` long."""
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} of {self.slots}")
        return self.buffer[slot * self._stride :][: self.slot_bytes]

    def release_fd(self) -> None:
        """Closes the descriptor once it is not to be passed on any more; the memory stays mapped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Lets go. Memory that somebody still views is unmapped with the last view."""
        self.release_fd()
        with contextlib.suppress(BufferError):
            self.buffer.release()


def _stride(slot_bytes: int) -> int:
    return max(1, -(-slot_bytes // ALIGN_BYTES)) * ALIGN_BYTES
