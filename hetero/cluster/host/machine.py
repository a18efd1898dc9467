"""Which machine this is, as far as sharing memory goes."""

from __future__ import annotations

import os
from pathlib import Path


def machine() -> str:
    """Equal for two processes exactly if they run under one kernel and see the same local sockets."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/net')}"
