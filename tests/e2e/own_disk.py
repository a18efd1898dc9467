"""`hetero` whose run's checkpoints lie on a file system that no other process sees, as on a machine without a shared
one. In a mount namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from hetero.checkpoint.address import Location
from hetero.checkpoint.resume import checkpoint_folder
from hetero.cli import app
from hetero.job.run import checkpoints


def _on_own_disk(run_dir: Path, storage: str | None) -> Location:
    folder = checkpoint_folder(run_dir, storage)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    return folder


if __name__ == "__main__":
    with patch.object(checkpoints, "checkpoint_folder", _on_own_disk):
        sys.exit(app.run(sys.argv[1:]))
