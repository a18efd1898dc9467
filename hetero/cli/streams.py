"""Standard output and error of the command: which may be closed, full, a pipe that nobody reads, or of few letters.

A command that writes in vain ends with an error that names the stream. A run goes on, and writes no more there; its
journals have everything.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from hetero.errors import ExplainedError


class StreamLost(ExplainedError):
    """What is printed cannot be written. `quiet`: nobody wants to hear, for the reader has left."""

    failure = True

    def __init__(self, name: str, error: OSError) -> None:
        rule = f"must take what is printed ({error.strerror})"
        super().__init__(name, None, rule, "send it elsewhere, or to /dev/null")
        self.quiet = error.errno == errno.EPIPE


class OutputStream(io.RawIOBase):
    """A file descriptor that fails once; what is written from then on goes nowhere. Never, if it is `lasting`."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd, self._name, self._lost, self.lasting = fd, name, False, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: bytes) -> int | None:  # type: ignore[override]
        try:
            return len(data) if self._lost else os.write(self._fd, data)
        except BlockingIOError:
            return None
        except OSError as error:
            self._lost = True
            if not self.lasting:
                raise StreamLost(self._name, error) from None
            self._tell_other(error)
            return len(data)

    def _tell_other(self, error: OSError) -> None:
        """Unless that is lost too, which may be how this one came to be told: no stream is written to in itself."""
        if all(stream._lost for stream in _streams):
            return
        other = sys.stderr if self._fd == 1 else sys.stdout
        print(f"{self._name} is lost ({error.strerror}); the run goes on, and its journals have everything", file=other)


_streams: list[OutputStream] = []


def install() -> None:
    """For the whole process. A stream that is closed is /dev/null, lest a file of the run is opened in its place."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = _stream(OutputStream(1, "standard output"), sys.stdout)
    sys.stderr = _stream(OutputStream(2, "standard error"), sys.stderr)


def last() -> None:
    """From now on a stream that is lost ends nothing."""
    for stream in _streams:
        stream.lasting = True


def flush() -> None:
    """Raises StreamLost if the last words of the command cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _stream(stream: OutputStream, before: TextIO | None) -> TextIO:
    """Prints what the terminal has no letters for as question marks."""
    _streams.append(stream)
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(stream),  # type: ignore[type-var]  # which takes any raw file
        encoding=before.encoding if before is not None else "utf-8",
        errors="replace",
        line_buffering=stream.fileno() == 2 or stream.isatty() or getattr(before, "write_through", False),
    )
