"""What a run takes of the machine (processes, shared memory, ports, temporary folders), and what of it is still there.

Nothing is found by its name: a run's processes are the command, all that descend from it, and all that bear the test's
mark in their environment. What was once seen is remembered, so that orphans are known again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "HETERO_TEST_MARK"
SHARED_MEMORY = Path("/dev/shm")
Port = tuple[str, int]


class Footprint:
    """Made before the run starts. `folders` are the places where it may put temporary files, empty now."""

    def __init__(self, mark: str, folders: list[Path]) -> None:
        self.mark, self.folders = mark, folders
        self.processes: set[psutil.Process] = set()
        self.ports: set[Port] = set()
        self._segments_before = set(os.listdir(SHARED_MEMORY))

    def look(self, command: int) -> None:
        """Remember what the run of the command with this pid holds now."""
        self.processes |= set(_family(command)) | set(self._marked())
        for process in self.processes:
            try:
                connections = process.net_connections(kind="inet")
            except psutil.Error:
                continue
            self.ports |= {tuple(one.laddr) for one in connections if one.status == psutil.CONN_LISTEN}

    def left(self) -> list[str]:
        """What is still there, in words; empty if the run has gone without a trace."""
        alive = {process for process in self.processes | set(self._marked()) if process.is_running()}
        return [
            *(f"process {process.pid}: {_title(process)}" for process in alive),
            *(f"port {port}" for port in self._open_ports({process.pid for process in alive})),
            *(f"shared memory {name}" for name in self._orphaned_segments()),
            *(f"file {path}" for folder in self.folders for path in folder.iterdir()),
        ]

    def left_after(self, seconds: float) -> list[str]:
        """The same, once nothing is left or the time is up."""
        until = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.2)
        return left

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    yield process
            except psutil.Error:
                continue

    def _open_ports(self, ours: set[int]) -> set[Port]:
        """Those of the run's ports that nobody else listens on."""
        listening = [one for one in psutil.net_connections(kind="inet") if one.status == psutil.CONN_LISTEN]
        return {tuple(one.laddr) for one in listening if one.pid is None or one.pid in ours} & self.ports

    def _orphaned_segments(self) -> set[str]:
        """New since the start, and no segments of another program that runs now."""
        new = set(os.listdir(SHARED_MEMORY)) - self._segments_before
        return new - set(_segments_in_use()) if new else set()


def _family(command: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(command)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip() or process.name()
    except psutil.Error:
        return "?"


def _segments_in_use() -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            paths = {each.path for each in process.memory_maps()} | {each.path for each in process.open_files()}
        except psutil.Error:
            continue
        yield from (Path(path).name for path in paths if Path(path).parent == SHARED_MEMORY)
