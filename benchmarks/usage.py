"""What the processor did, and for whom."""

from __future__ import annotations

import psutil

MOST_BUSY_PERCENT = 5.0


class Usage:
    """Since it was made: of this process and its children, some of whom are left out of the first figure."""

    def __init__(self, without: frozenset[int]) -> None:
        self._without = without
        self._began = self._look()

    def since(self) -> tuple[float, float]:
        """Seconds of processor time of the family but for those left out, and what strangers took, as a part of all
        that the cores could do."""
        counted, family, busy, whole = (now - then for now, then in zip(self._look(), self._began, strict=True))
        return counted, max(0.0, busy - family) / whole

    def _look(self) -> tuple[float, float, float, float]:
        """Seconds of those who count, of the whole family, of everybody, and of all cores."""
        me = psutil.Process()
        members = {one.pid: _seconds(one) for one in (me, *me.children(recursive=True))}
        counted = sum(seconds for pid, seconds in members.items() if pid not in self._without)
        system = psutil.cpu_times()._asdict()
        whole = sum(seconds for kind, seconds in system.items() if not kind.startswith("guest"))
        idle = sum(system.get(kind, 0.0) for kind in ("idle", "iowait", "steal"))
        return counted, sum(members.values()), whole - idle, whole


def other_work(seconds: float = 2.0) -> str | None:
    """Why figures would be void, if the processor is busy before anything of ours is."""
    busy = psutil.cpu_percent(seconds)
    return f"the machine has other work: {busy:.0f}% of its processor" if busy > MOST_BUSY_PERCENT else None


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
