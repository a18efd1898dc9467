"""Where a model's directory lies on this machine. The hub itself is never asked."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hetero.huggingface.errors import KEY, HfError
from hetero.paths import local

_NAME = re.compile(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


def place(text: str, key: str = KEY) -> Path:
    """The folder of this path or, where there is none, of this name in the local cache of the hub. Raises HfError."""
    path = local(text, key)
    if os.path.isdir(path):
        return path
    if not _NAME.fullmatch(text) or ".." in text:
        raise HfError(key, text, "there is no such folder", f"name a folder with {_WHAT}")
    cached = cache() / f"models--{text.replace('/', '--')}"
    if (snapshot := _snapshot(cached)) is None:
        rule = f"there is no such folder, and the local cache of the hub has no model of this name in {cached}"
        remedy = f"copy a folder with {_WHAT} here and name it, or copy {cached.name} of another machine's cache there"
        raise HfError(key, text, rule, remedy)
    return snapshot


_WHAT = "config.json and *.safetensors"


def cache() -> Path:
    """The folder that huggingface_hub downloads to, by the variables that it obeys."""
    if named := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expanduser(named))
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(base, "huggingface")
    return Path(os.path.expanduser(home)) / "hub"


def _snapshot(cached: Path) -> Path | None:
    """That of the branch `main`, or the only one."""
    snapshots = cached / "snapshots"
    try:
        commit = (cached / "refs" / "main").read_text().strip()
        return snapshots / commit if _COMMIT.fullmatch(commit) and (snapshots / commit).is_dir() else None
    except OSError:
        found = list(snapshots.iterdir()) if snapshots.is_dir() else []
        return found[0] if len(found) == 1 else None
