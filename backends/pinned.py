"""Whether a chip may be trusted with copies from and to pinned memory that run beside compute."""

from __future__ import annotations

import mmap
import queue
import threading
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from backends.accelerator import AcceleratorBackend

ROUNDS = 4
VALUES = 1 << 18  # float32: 1 MiB of whole numbers, which stay exact
LIMIT_S = 60.0
"""Thousands of times what it takes. A runtime that does not come back from a copy is not waited for."""


def pinned_fault(chip: AcceleratorBackend) -> str:
    """Why the opened `chip`, whose copies are asynchronous by now, must not keep them; empty if nothing says so.

    Copies go through torch's staging, and from and to memory that is pinned in place where the chip can do that. They
    are tried in a thread, which is left behind if it has not ended by `LIMIT_S`.
    """
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: found.put(_fault(chip)), daemon=True, name="pinned copies").start()
    try:
        return found.get(timeout=LIMIT_S)
    except queue.Empty:
        return f"copies by pinned memory have not ended within {LIMIT_S:g} s"


def _fault(chip: AcceleratorBackend) -> str:
    memory = mmap.mmap(-1, VALUES * 4)
    host = torch.frombuffer(memory, dtype=torch.float32)
    try:
        chip.attend()
        if not chip.pins_staging():
            return "torch has no pinned memory"
        if not _true(chip, host):
            return "a copy by pinned memory differs"
        if not chip.pin(memoryview(memory)):
            return ""
        try:
            return "" if _true(chip, host) else "a copy by memory pinned in place differs"
        finally:
            chip.unpin(memoryview(memory))
    except Exception as error:  # whatever a vendor's plug-in raises is the answer
        return str(error).partition("\n")[0] or type(error).__name__


def _true(chip: AcceleratorBackend, host: Tensor) -> bool:
    """The chip reads and writes the same memory every round, so that stale lines of its caches would show."""
    there = torch.zeros(VALUES, device=chip.device)
    for number in range(ROUNDS):
        first = 7 * number  # never what the round before left
        sent = torch.arange(first, first + VALUES, dtype=torch.float32)
        host.copy_(sent)
        chip.copy_in(host, there).wait()
        there.add_(1)
        host.zero_()
        chip.copy_out(there, host).wait()
        if not torch.equal(host, sent + 1):
            return False
    return True
