"""A long fat link between two network namespaces, made for as long as it is needed, for kernels without netem.

Each end is a TUN device, and what one says a process of this module writes to the other: as late as a line of that rate
and length would bring it, and not at all if the queue before the line is full. Packets have up to 64 KiB, as the
kernel's own segmentation offload makes them: that is what lets Python keep up with 10 Gbit/s. Needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import select
import struct
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x1000, 0x4000
_CHECKSUMS, _SEGMENTS_4, _SEGMENTS_6 = 0x1, 0x2, 0x4
_MTU, _MOST_BYTES = 9000, 66 << 10
_TURN = 16  # packets that are taken before others are looked after
_FORK = multiprocessing.get_context("fork")
_ADDRESS = "10.98.0.{}"


@dataclass(frozen=True)
class Line:
    """One direction. `queue_bytes` wait before it at most."""

    bytes_per_s: float
    delay_s: float
    queue_bytes: int = 64 << 20

    def carry(self, source: int, target: int) -> None:
        """From one descriptor to the other, for ever."""
        under_way: deque[tuple[float, bytes]] = deque()
        free_at = 0.0
        while True:
            taken = _take(source)
            now = time.monotonic()
            for packet in taken:
                free_at = max(free_at, now)
                if (free_at - now) * self.bytes_per_s <= self.queue_bytes:
                    free_at += len(packet) / self.bytes_per_s
                    under_way.append((free_at + self.delay_s, packet))
            while under_way and under_way[0][0] <= now:
                with contextlib.suppress(OSError):  # a receiver may refuse a packet, and lose it
                    os.write(target, under_way.popleft()[1])
            if not taken:
                select.select([source], [], [], max(0.0, under_way[0][0] - time.monotonic()) if under_way else None)


def _take(source: int) -> list[bytes]:
    taken: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while len(taken) < _TURN:
            taken.append(os.read(source, _MOST_BYTES))
    return taken


@contextlib.contextmanager
def wan(line: Line) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Two ends, each an address and the namespace that has it, with such a line either way."""
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(_end(number)) for number in (1, 2)]
        for source, target in (ends, ends[::-1]):
            carrier = _FORK.Process(target=line.carry, args=(source[0], target[0]), daemon=True)
            carrier.start()
            stack.callback(carrier.join)
            stack.callback(carrier.kill)
        yield ends[0][1], ends[1][1]


@contextlib.contextmanager
def _end(number: int) -> Iterator[tuple[int, tuple[str, str]]]:
    """A namespace with a device, and the descriptor of what the device says."""
    name, address = f"hetero-{os.getpid()}-{number}", _ADDRESS.format(number)
    device = f"wan{os.getpid() % 10**8}-{number}"
    with contextlib.ExitStack() as stack:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        stack.callback(os.close, fd)
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "del", name)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _CHECKSUMS | _SEGMENTS_4 | _SEGMENTS_6)
        _ip("link", "set", device, "netns", name)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
        _ip("-n", name, "link", "set", device, "mtu", str(_MTU), "txqueuelen", "10000", "up")
        yield fd, (address, name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stderr=subprocess.PIPE, text=True)


def why_not() -> str | None:
    """What this machine denies us for it, found by trying."""
    try:
        with _end(0):
            return None
    except OSError as error:
        return f"{error.filename or '/dev/net/tun'}: {error.strerror}"
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"
