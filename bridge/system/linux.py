"""Linux calls that Python 3.10 does not wrap, or that a process makes for itself at its start."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import struct
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_PR_SET_PDEATHSIG = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP_BYTES = 1 << 28
NICE = -15
_TUNABLES, _PAST_CACHES = "GLIBC_TUNABLES", "glibc.cpu.x86_non_temporal_threshold"
_LARGE_BYTES = 512 << 10
_MAP_FIXED, _MAP_FAILED = 0x10, ctypes.c_void_p(-1).value
_MADV_COLLAPSE = 25  # since Linux 6.1
_HUGE_BYTES = 2 << 20
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_BPF_LENGTH, _BPF_IF_MORE, _BPF_KEEP, _ALL = 0x80, 0x25, 0x06, (1 << 32) - 1
_KEEP_NOTHING = (_BPF_KEEP, 0, 0, 0)
_ITIMERSPEC = struct.Struct("@4q")


class Timer:
    """A descriptor that becomes readable at a set time of `time.monotonic`; poll itself only counts milliseconds."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, when: float) -> None:
        """Replaces the time set before."""
        seconds, nanoseconds = divmod(max(1, int(when * 1e9)), 1_000_000_000)
        spec = _ITIMERSPEC.pack(0, 0, seconds, nanoseconds)
        if _libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, spec, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Takes the expiry note out of the descriptor, if there is one."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)


def keep_memory() -> None:
    """Has malloc keep large blocks for the next one, instead of giving them back to the kernel and taking them anew
    page by page, which costs as much as copying them. To be called before other threads allocate. See mallopt(3)."""
    for option, value in ((_M_MMAP_THRESHOLD, _KEEP_BYTES), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_ARENA_MAX, 1)):
        if hasattr(_libc, "mallopt"):  # glibc
            _libc.mallopt(option, value)


def past_caches(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that copies much and reads little of it: glibc on x86 is to write copies of 512 KiB
    and more past the caches, and not to read first what is overwritten. It looks at its tunables when a program starts;
    what they say already stays, and counts."""
    said = variables.get(_TUNABLES, "")
    if _PAST_CACHES in said:
        return dict(variables)
    return {**variables, _TUNABLES: ":".join(filter(None, [said, f"{_PAST_CACHES}={_LARGE_BYTES:#x}"]))}


def map_shared(fd: int, nbytes: int) -> memoryview:
    """The first `nbytes` of a file, unmapped with the last view. Unlike `mmap.mmap` it chooses an address at which huge
    pages of the file may be used as such."""
    room_bytes = nbytes + _HUGE_BYTES
    room = _mmap(None, room_bytes, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
    start = -(-room // _HUGE_BYTES) * _HUGE_BYTES
    memory = (ctypes.c_char * nbytes).from_address(start)
    weakref.finalize(memory, _libc.munmap, room, room_bytes).atexit = False  # other threads may be at it until the end
    _mmap(start, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED, fd)
    return memoryview(memory).cast("B")


def reset_connection(fd: int) -> None:
    """Ends a TCP connection here and now, whoever else holds it: what came and was not read is thrown away, and the
    peer gets a reset. After `shutdown` a peer that goes on sending is read on. See connect(2), AF_UNSPEC."""
    if _libc.connect(fd, bytes(16), 16) != 0:
        raise OSError(ctypes.get_errno(), "connect")


def take_small_segments(listener: socket.socket, most_bytes: int) -> None:
    """Of those that connect to it from now on the kernel drops every TCP segment with more, headers included, as if it
    were lost on the way. Where the kernel knows no socket filters (gVisor), all stays as it was. See bpf(4)."""
    _filter(listener, (_BPF_LENGTH, 0, 0, 0), (_BPF_IF_MORE, 0, 1, most_bytes), _KEEP_NOTHING, (_BPF_KEEP, 0, 0, _ALL))


def take_no_segments(listener: socket.socket) -> None:
    """Nobody connects to it any more, though it listens on. Where the kernel knows no filters, all stays as it was."""
    _filter(listener, _KEEP_NOTHING)


def take_all_segments(connection: socket.socket) -> None:
    """From now on none is dropped. What was comes again, as all that was lost does."""
    with contextlib.suppress(OSError):  # there is no filter
        connection.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _filter(end: socket.socket, *code: tuple[int, int, int, int]) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
    with contextlib.suppress(OSError):
        told = struct.pack("@HP", len(code), ctypes.addressof(program))
        end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, told)


def use_huge_pages(memory: memoryview) -> None:
    """Fills fresh memory from `map_shared` with huge pages, as far as whole ones fit and the kernel has them to give,
    whatever it does by itself. The rest is filled with small ones when it is touched."""
    whole_bytes = len(memory) // _HUGE_BYTES * _HUGE_BYTES
    if not whole_bytes:
        return
    memory[:whole_bytes:_HUGE_BYTES] = bytes(whole_bytes // _HUGE_BYTES)  # only where there is a page already
    _libc.madvise(ctypes.addressof(ctypes.c_char.from_buffer(memory)), whole_bytes, _MADV_COLLAPSE)


def _mmap(address: int | None, nbytes: int, access: int, flags: int, fd: int) -> int:
    mapped: int = _libc.mmap(address, nbytes, access, flags, fd, 0)
    if mapped == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    return mapped


def take_precedence() -> None:
    """Has this process, which computes little and is waited for, go before those that compute, if it may: that
    takes CAP_SYSNICE or `ulimit -e`. To be called before other threads start, which inherit it."""
    with contextlib.suppress(OSError):
        os.nice(NICE)


def die_with_parent() -> None:
    """Ends this process as soon as its parent process is dead.

    The kernel sends the signal when the parent *thread* ends, which alone means nothing: hence the look at the parent.
    """
    parent = os.getppid()

    def check(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGHUP, check)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)


def hand_over(what: T, fds: list[int], take: Callable[[T, list[int]], object]) -> None:
    """Gives what has come, with descriptors, to who takes it. Those that he leaves in the list are closed, whatever
    comes of it."""
    try:
        take(what, fds)
    finally:
        for fd in fds:
            os.close(fd)
