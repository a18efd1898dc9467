"""What a run directory on a cluster gains, told through the log of a small shell command. Pure text; no Ray.

The command prints each new piece of a file as a frame that stands in the log between whatever Ray writes there:

    -----PIECE metrics.jsonl 4096-----
    H4sIAAAAAAAAA6tWKi5JLVCyUjCsBQBU...        gzip in base64, of the bytes from 4096 on
    -----END-----

and -----IDLE----- once it has sent all that there is for now.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hetero.monitoring.journal import EVENTS, METRICS

GROWING = (METRICS, EVENTS, "trace.json")
"""Files that are only appended to."""
REWRITTEN = ("job.yaml", "plan.json")
"""Small files that are replaced as a whole."""
MOST_BYTES = 4 << 20
LINE = 3000
GZIP = 16 + zlib.MAX_WBITS
IDLE = "-----IDLE-----"
END = "-----END-----"
MOST_LETTERS = 2 * MOST_BYTES
"""Of a piece as it stands in the log."""
_PIECE = re.compile(r"-----PIECE (\S{1,100}) (\d{1,15})-----")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+=*")


class DamagedPiece(ValueError):
    """What the log says of a piece is not what was sent."""


@dataclass(frozen=True)
class FilePiece:
    """Bytes of a file from `offset` on."""

    file: str
    offset: int
    content: bytes


_SCRIPT = """\
piece() {{
printf '%s %s %s-----\\n' -----PIECE "$1" "$2"
tail -c "+$(($2 + 1))" "$1" | head -c "$3" | gzip -c | base64 -w {line}
printf '%s\\n' -----END-----
}}
grown() {{
[ -f "$1" ] || return 1
n=$(($(wc -c < "$1") - $2))
[ "$n" -le {most_bytes} ] || n={most_bytes}
[ "$n" -gt 0 ]
}}
sleep 1
until=$(($(date +%s) + {seconds}))
{offsets}
while [ "$(date +%s)" -lt "$until" ]; do
more=
if cd {folder} 2>/dev/null; then
{files}
fi
[ -n "$more" ] || {{ [ -n "$told" ] || printf '%s\\n' -----IDLE-----; told=1; sleep {every_s:g}; }}
done"""
_GROWING = 'if grown {file} "$at{i}"; then piece {file} "$at{i}" "$n"; at{i}=$((at{i} + n)); more=1; fi'
_REWRITTEN = (
    "if [ -f {file} ]; then "
    'sum=$(cksum < {file}); [ "$sum" = "$sum{i}" ] || piece {file} 0 {most_bytes}; sum{i}=$sum; fi'
)


def command(folder: str, offsets: Mapping[str, int], seconds: int, every_s: float = 1.0) -> str:
    """Lines for a shell that tell what the files in `folder` (as a shell reads it) hold from `offsets` on, and what
    they gain. They end by themselves after so many seconds, whatever has become of their reader. The first wait lets
    Ray write these lines into the log before."""
    growing = [_GROWING.format(file=file, i=i) for i, file in enumerate(GROWING)]
    rewritten = [_REWRITTEN.format(file=file, i=i, most_bytes=MOST_BYTES) for i, file in enumerate(REWRITTEN)]
    return _SCRIPT.format(
        folder=folder,
        line=LINE,
        most_bytes=MOST_BYTES,
        seconds=seconds,
        every_s=every_s,
        offsets="\n".join(f"at{i}={offsets.get(file, 0)}" for i, file in enumerate(GROWING)),
        files="\n".join(rewritten + growing),
    )


class PieceReader:
    """Finds the pieces in a log that arrives bit by bit."""

    def __init__(self) -> None:
        self._rest = ""
        self._heading: tuple[str, int] | None = None
        self._lines: list[str] = []
        self._letters = 0

    def read(self, text: str) -> Iterator[FilePiece | None]:
        """The pieces that are whole now; None where the command has nothing more to send for now.

        Raises DamagedPiece."""
        *lines, self._rest = (self._rest + text).split("\n")
        self._rest = self._rest[: 2 * LINE]  # no line of ours is longer, and this one is none then
        for line in lines:
            if found := _PIECE.fullmatch(line):
                self._heading, self._lines, self._letters = (found[1], int(found[2])), [], 0
            elif line == IDLE:
                yield None
            elif line == END and self._heading is not None:
                yield self._whole(*self._heading)
                self._heading = None
            elif self._heading is not None and _BASE64.fullmatch(line):
                self._letters += len(line)
                if self._letters > MOST_LETTERS:
                    raise DamagedPiece("a piece is longer than any that is sent")
                self._lines.append(line)

    def _whole(self, file: str, offset: int) -> FilePiece:
        try:
            content = zlib.decompressobj(wbits=GZIP)
            unpacked = content.decompress(base64.b64decode("".join(self._lines)), MOST_BYTES + 1)
        except (zlib.error, binascii.Error) as error:
            raise DamagedPiece(str(error)) from error
        if not content.eof or len(unpacked) > MOST_BYTES:
            raise DamagedPiece("a piece is cut off, or larger than any that is sent")
        return FilePiece(file, offset, unpacked)
