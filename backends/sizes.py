"""Bytes, as people read them."""

from __future__ import annotations

GIB, MIB = 2**30, 2**20


def size_text(n_bytes: float) -> str:
    """Such as 1.50 GiB; less than one, such as 20.5 MiB."""
    return f"{n_bytes / GIB:.2f} GiB" if n_bytes >= GIB else f"{n_bytes / MIB:.1f} MiB"
