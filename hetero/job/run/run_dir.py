"""Where a run is recorded that was told no folder."""

from __future__ import annotations

import secrets
import time
from pathlib import Path


def new_run_dir(name: str) -> Path:
    """Two runs that start within one second have two."""
    plain = name.replace("/", "-").encode()[:100].decode(errors="ignore")  # a file's name has room for 255 bytes
    return Path("runs") / f"{plain}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
