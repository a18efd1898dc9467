"""A run directory of a cluster's job as a folder of this machine, which follows it while one looks at it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from bridge.system.awake import LONGEST_S, AwakeClock
from hetero.cluster.errors import ClusterError
from hetero.cluster.jobs.jobs import JobServer, shell_path
from hetero.cluster.jobs.relay import GROWING, REWRITTEN, DamagedPiece, FilePiece, PieceReader, command
from hetero.cluster.private_folder import passing_folder
from hetero.terminal import word

FIRST_S = 60.0
"""Within so long the cluster has told all that there is so far."""
AT_A_TIME_S = 600
"""A command on the cluster lasts no longer, so that none is left there by a reader that was killed."""
MOST_BYTES = 4 << 30
"""Of each file that is followed."""
AGAIN_S = 2.0
LEAVING_S = 10.0
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def mirrored(server: JobServer, id_: str) -> Iterator[Path]:
    """A folder that holds what the job's run directory holds, checkpoints and tokens apart, and goes on to follow it.

    Raises ClusterError if there is no such job, or the cluster does not tell in time."""
    run_dir = server.job(id_).run_dir
    with passing_folder() as place:
        folder = place / id_
        folder.mkdir()
        mirror = _Mirror(server, run_dir, folder)
        try:
            if not mirror.catch_up(FIRST_S):
                rule = f"the cluster has not told within {FIRST_S:g} s what is in {run_dir}"
                raise ClusterError("JOB", id_, rule, "try hetero jobs fetch, or look at the cluster's head")
            yield folder
        finally:
            mirror.close()


class _Mirror:
    """A thread that has a command on the cluster tell what is new, and has another do so when that has ended."""

    def __init__(self, server: JobServer, run_dir: str, folder: Path) -> None:
        self._caught_up = threading.Event()
        self._server, self._run_dir, self._folder = server, run_dir, folder
        self._closing = threading.Event()
        self._errand = ""
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def catch_up(self, seconds: float) -> bool:
        """Whether all that there is so far is here within so long."""
        clock = AwakeClock()
        while not self._caught_up.wait(min(seconds, LONGEST_S)):
            if clock.now() > seconds:
                return False
        return True

    def close(self) -> None:
        """Ends the command on the cluster, and with it the thread."""
        self._closing.set()
        with contextlib.suppress(ClusterError):
            self._server.end_errand(self._errand)
        self._thread.join(LEAVING_S)

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow()
            except (ClusterError, DamagedPiece) as error:
                logger.warning("the cluster is asked again: %s", word(error))
            self._closing.wait(AGAIN_S)

    def _follow(self) -> None:
        offsets = {file: _size(self._folder / file) for file in GROWING}
        self._errand = self._server.begin_errand(command(shell_path(self._run_dir), offsets, AT_A_TIME_S))
        reader = PieceReader()
        try:
            for text in self._server.printed(self._errand):
                for piece in reader.read(text):
                    if piece is None:
                        self._caught_up.set()
                    else:
                        write(self._folder, piece)
        finally:
            self._server.end_errand(self._errand)


def write(folder: Path, piece: FilePiece) -> None:
    """Appends to a file that grows, replaces another. Raises DamagedPiece where bytes before it are missing, where all
    is more than MOST_BYTES, and for files that nobody asked for."""
    path = folder / piece.file
    if piece.file not in (*GROWING, *REWRITTEN):
        raise DamagedPiece(f"{piece.file} is no file that is followed")
    if piece.offset + len(piece.content) > MOST_BYTES:
        raise DamagedPiece(f"{piece.file} has more than {MOST_BYTES >> 30} GiB")
    if piece.file in GROWING:
        if piece.offset != _size(path):
            raise DamagedPiece(f"{piece.file} continues at {piece.offset}, not at {_size(path)}")
        with path.open("ab") as file:
            file.write(piece.content)
    else:
        half = path.with_name(path.name + ".part")
        half.write_bytes(piece.content)
        half.replace(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
