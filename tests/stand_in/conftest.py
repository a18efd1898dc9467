from __future__ import annotations

from tests.distributed.conftest import _one_thread, text

__all__ = ["_one_thread", "text"]
