"""Which of many troubles is the root of a failure.

One death makes many errors: peers lose their connections, collectives abort, waits run out. The first report that the
driver hears is therefore not always the cause, but the cause arrives within a short grace after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backends.errors import OutOfMemory
from bridge.errors import ReleaseDiffers
from hetero.checkpoint.errors import StorageFull
from hetero.cluster.control.events import Severity, Trouble
from hetero.cluster.errors import ClusterError, HostFailure, RankFailure, RayFailure
from hetero.errors import PARTS, ExplainedError

WAKE_TYPES = frozenset({"PeerLost", "BridgeTimeout", "PipeClosed", "DistBackendError", "DistNetworkError"})
_WAKE_TEXT = re.compile(
    r"connection (was )?(closed|reset|refused|aborted)|broken pipe|closed by peer|timed? ?out|remote process|"
    r"socket|unhandled system error",
    re.IGNORECASE,
)
_GENERIC_TYPES = frozenset({"RuntimeError", "ConnectionError", "ConnectionResetError", "BrokenPipeError", "OSError"})

_MISTAKES = {error.__name__: error for error in (ClusterError, StorageFull)}


class Blame:
    """Collects troubles until the root is clear: at once for a plain death, else `grace_s` after the first."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._deadline: float | None = None
        self._troubles: list[Trouble] = []

    def add(self, trouble: Trouble, now: float) -> None:
        self._troubles.append(trouble)
        if self._deadline is None:
            self._deadline = now + self._grace_s
        if trouble.severity is Severity.DIED:
            self._deadline = now

    def root(self, now: float) -> tuple[Trouble, tuple[Trouble, ...]] | None:
        """The root and the others, or None while nothing is wrong or the root may yet arrive."""
        if self._deadline is None or now < self._deadline:
            return None
        root = min(self._troubles, key=lambda trouble: (trouble.severity, trouble.progress))
        return root, tuple(trouble for trouble in self._troubles if trouble is not root)


def severity_of(error: Mapping[str, Any]) -> Severity:
    """Whether an error that a rank described is its own, or only the echo of somebody else's end."""
    kind, message = str(error.get("type", "")), str(error.get("message", ""))
    if kind == ReleaseDiffers.__name__:
        return Severity.DIED  # nothing better can come
    if kind in WAKE_TYPES or (kind in _GENERIC_TYPES and _WAKE_TEXT.search(message)):
        return Severity.IN_THE_WAKE
    return Severity.OWN_ERROR


def failure(root: Trouble, others: tuple[Trouble, ...], step: int, node: str) -> ExplainedError:
    """The one error that the user sees: ClusterError where the host could not be started as the job asks, its
    interpreter has another release or its chip cannot hold the stage, StorageFull where it could not save, else
    RayFailure, RankFailure or HostFailure."""
    if not root.host:
        return RayFailure("Ray", f"{root.process}, step {step}", f"{root.process} {root.cause}", _remedy(root))
    error = root.error or {}
    if mistake := _MISTAKES.get(str(error.get("type"))):
        return mistake(*(error.get(part, "") for part in PARTS))
    pool = root.host.partition("@")[0]
    where = f"host {root.host}" + (f" on {node}" if node else "")
    who = f"rank {root.rank}" if root.rank else root.process
    if error.get("type") == OutOfMemory.__name__:
        return ClusterError(f"pools.{pool}", f"{error['value']} ({who}, {where})", error["rule"], error["remedy"])
    if error.get("type") == ReleaseDiffers.__name__:
        key = f"pools.{pool}" if root.process == "agent" else f"pools.{pool}.env.python"
        told = f"{error.get('value') or 'an older one'} ({who}, {where})"
        return ClusterError(key, told, error["rule"], error["remedy"])
    names: dict[str, Any] = {"host": root.host, "cause": root.cause, "rank": root.rank, "also": _lines(others)}
    parts = (
        error.get("key") or f"pools.{pool}",
        f"{who}, {where}, step {step}",
        f"{who} {root.cause}",
        error.get("remedy") or _remedy(root),
    )
    if root.rank is None:
        return HostFailure(*parts, **names)
    return RankFailure(*parts, error=error, **names)


def _lines(troubles: tuple[Trouble, ...]) -> tuple[str, ...]:
    return tuple(f"{trouble.host} {trouble.rank or trouble.process} {trouble.cause}" for trouble in troubles)


def _remedy(root: Trouble) -> str:
    if root.severity is Severity.SILENT:
        return "look at what the rank does (py-spy dump --pid PID), or allow it more time"
    if root.severity is Severity.IN_THE_WAKE:
        return "no process reported an error of its own: look at the network between the hosts, then at the other side"
    if "SIGKILL" in root.cause:
        return "look whether the kernel was out of memory (dmesg), then resume from the last checkpoint"
    if not root.host:
        return "look at the cluster's head, and at gcs_server.out among its logs, then resume from the last checkpoint"
    if root.severity is Severity.OWN_ERROR:
        return "its traceback is in events.jsonl, with the event `failed`"
    return "look at the process's own output above, then resume from the last checkpoint"
